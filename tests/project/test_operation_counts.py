"""The counter of benchmarks/theory/measure.py against counts by hand."""

import importlib.util
import pathlib

import numpy as np
import pytest
from scipy.sparse import csr_array

from sklearn_subquad import _kernels
from sklearn_subquad._linalg.columnwise import ColumnwiseSum
from sklearn_subquad._linalg.packed import PackedMatrix, row_gram_columns
from sklearn_subquad._linalg.sparse_rows import SparseRows
from sklearn_subquad._network.lazy_weights import LazyWeights
from sklearn_subquad._utils.stopwatch import Stopwatch

PATH = pathlib.Path(__file__).resolve().parents[2] / "benchmarks" / "theory" / "operation_counts.py"
N_OUT, N_IN = 128, 192
# Entries of three rows, of which there are 4 + 1 + 0; together they use five of 192 columns.
COLUMNS = ((0, 1, 70, 191), (5,), ())


@pytest.fixture(scope="module")
def counts_module():
    if not PATH.is_file():
        pytest.skip(f"no benchmarks beside the tests: {PATH.name} is missing.")
    spec = importlib.util.spec_from_file_location("operation_counts", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def counter(counts_module):
    return counts_module.OperationCounter()


def make_rows(columns, width):
    dense = np.zeros((len(columns), width), dtype=np.float32)
    for row, places in enumerate(columns):
        dense[row, list(places)] = 1.0
    rows = csr_array(dense)
    rows.indptr, rows.indices = rows.indptr.astype(np.int32), rows.indices.astype(np.int32)
    return SparseRows.from_csr(rows)


def make_weights():
    return LazyWeights(PackedMatrix.from_dense(np.ones((N_OUT, N_IN), dtype=np.float32)))


def test_forward_product_counts_entries_times_outputs(counter):
    with counter.counting():
        make_weights().forward(make_rows(COLUMNS, N_IN))
    counted = counter.phases["init"]
    assert counter.n_weights == N_OUT * N_IN
    assert counted.through_weights == 2 * 5 * N_OUT
    assert counted.weights_fetched == N_OUT * N_IN
    assert counted.n_forward == pytest.approx(1.0)
    assert counted.inputs_used == pytest.approx(5 / N_IN)
    assert counted.n_backward == counted.elsewhere == counted.dense == 0


def test_backward_product_counts_entries_times_inputs(counter):
    with counter.counting():
        make_weights().backward(make_rows(((3, 127), (3,)), N_OUT))
    counted = counter.phases["init"]
    assert counted.through_weights == 2 * 3 * N_IN
    assert counted.weights_fetched == N_OUT * N_IN
    assert counted.n_backward == pytest.approx(1.0)
    assert counted.outputs_used == pytest.approx(2 / N_OUT)
    assert counted.n_forward == 0


def test_weights_are_fetched_once_for_every_chunk_of_rows(counts_module, counter):
    columns = [(0,)] * (counts_module.CHUNK_ROWS + 1)
    with counter.counting():
        make_weights().forward(make_rows(columns, N_IN))
    counted = counter.phases["init"]
    assert counted.weights_fetched == 2 * N_OUT * N_IN
    assert counted.through_weights == 2 * len(columns) * N_OUT


def test_every_pending_pair_of_factors_is_folded_in_by_a_pass_of_its_own(counter):
    U, G = make_rows(((0,), (1, 2)), N_OUT), make_rows(((0, 1, 2), ()), N_IN)
    with counter.counting():
        weights = make_weights()
        weights.push(U, G)
        weights.push(U, G)
        weights.flush()
    counted = counter.phases["init"]
    # The kernel uses the sparsity of G alone.
    assert counted.into_weights == 2 * (2 * 3 * N_OUT)
    assert counted.weights_written == 2 * N_OUT * N_IN
    assert counted.through_weights == 0


def test_pending_factors_do_not_count_as_weights(counter):
    U, G = make_rows(((0,), (1, 2)), N_OUT), make_rows(((0, 1, 2), ()), N_IN)
    rows = make_rows(COLUMNS, N_IN)
    with counter.counting():
        weights = LazyWeights(PackedMatrix.zeros(N_OUT, N_IN, np.float32), max_rank=8)
        weights.push(U, G)
        weights.forward(rows)
    counted = counter.phases["init"]
    assert counted.through_weights == 2 * 5 * N_OUT
    # rows @ G.T goes through tiles of 64 rows, of which three exist; its two columns then meet U's three entries.
    assert counted.elsewhere == 2 * 3 * 64 + 2 * 3 * 3


def test_gram_panels_count_the_rows_from_their_first_on(counter):
    rows = make_rows([(0, 1)] * 70, N_IN)
    with counter.counting():
        row_gram_columns(rows, 64, 70)
    # Six rows of two entries times one tile, of which six columns are asked for.
    assert counter.phases["init"].elsewhere == 2 * 12 * 6


def test_products_of_gram_matrices_count_both_factors(counter):
    rows = make_rows([(0, 1)] * 70, N_IN)
    pair = rows.pattern, rows.values
    with counter.counting():
        _kernels.add_hadamard(np.zeros((6, 6), np.float32), 64, None, [pair, pair], None, [pair])
    assert counter.phases["init"].elsewhere == 3 * 2 * 12 * 6


def test_dense_products_count_by_phase(counter):
    A, B = np.ones((3, 5), dtype=np.float32), np.ones((5, 128), dtype=np.float32)
    with counter.counting(), Stopwatch().phase("forward"):
        ColumnwiseSum((3, 128), np.float32, dense=(A, B)).dense()
    assert counter.phases["forward"].dense == 2 * 3 * 5 * 128
    assert set(counter.phases) == {"forward"}


def test_routes_that_are_not_counted_are_refused(counter):
    U, G = make_rows(((0,),), N_OUT), make_rows(((0,),), N_IN)
    with counter.counting(), pytest.raises(ValueError, match="'blas'"):
        PackedMatrix.zeros(N_OUT, N_IN, np.float32).add_product(U, G, "blas")


def test_nothing_is_counted_afterwards(counter):
    with counter.counting():
        weights = make_weights()
    weights.forward(make_rows(COLUMNS, N_IN))
    assert not counter.phases
