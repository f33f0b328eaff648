import sklearn_subquad
from sklearn_subquad import _kernels
from sklearn_subquad._linalg.threads import blas_libraries, resolve_n_jobs


def test_show_versions_reports_level_blas_threads_and_packages(capsys):
    sklearn_subquad.show_versions()
    printed = capsys.readouterr().out
    assert f"SIMD level: {_kernels.simd_level()} " in printed
    assert all(name in printed for name in _kernels.simd_levels())
    assert f"n_jobs=None: {resolve_n_jobs()}\n" in printed
    assert f"sklearn-subquad: {sklearn_subquad.__version__}\n" in printed
    assert "not installed" not in printed
    for library in blas_libraries():
        assert f"{library['internal_api']} {library['version']}" in printed
