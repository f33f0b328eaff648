"""Whole fits and predictions through the public estimators."""

from sklearn_subquad import SubquadMLPRegressor

from .problems import friedman


class Fit:
    params = ((512, 2048, 8192), (256, 1024))
    param_names = ("width", "rows")
    timeout = 300

    def setup(self, width, rows):
        self.X, self.y = friedman(rows)
        self.model = SubquadMLPRegressor(
            hidden_layer_sizes=(width, width), max_iter=3, damping=1.0, early_stopping=False, random_state=0
        )

    def time_three_steps(self, width, rows):
        self.model.fit(self.X, self.y)

    def peakmem_three_steps(self, width, rows):
        self.model.fit(self.X, self.y)


class Predict:
    params = ((512, 2048, 8192), (64, 4096))
    param_names = ("width", "rows")

    def setup(self, width, rows):
        X, y = friedman(256)
        self.model = SubquadMLPRegressor(
            hidden_layer_sizes=(width, width), max_iter=1, damping=1.0, early_stopping=False, random_state=0
        ).fit(X, y)
        self.X, _ = friedman(rows)

    def time_predict(self, width, rows):
        self.model.predict(self.X)

    def time_predict_with_deviations(self, width, rows):
        self.model.predict(self.X, return_std=True)

    def peakmem_predict(self, width, rows):
        self.model.predict(self.X)
