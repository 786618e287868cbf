r"""
From a CSV to a model one can trust
===================================

For those who have a table and a question: fit it, draw more rows, complete
half-known rows, find the odd ones, and learn which family to trust. The table here
is a chemical analysis of 178 Italian wines, built in so that nothing is downloaded;
put the path of your own file in its place.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import pushforward as pf
from pushforward.data import reading, writing
from pushforward.plots import style

plt.rcParams.update(style.RC)
folder = Path(tempfile.mkdtemp())
csv = folder / "wines.csv"
writing.write_samples(csv, pf.datasets.dataset_columns(pf.datasets.load("wine")))
print(*csv.read_text().splitlines()[:3], sep="\n")

# %%
# Check first
# -----------
#
# Everything that stands in the way of a fit is listed at once: missing cells,
# constant columns, text. Text can be a condition, but no column to be learned, and
# so the name of the cultivar is one.

for condition in (None, "cultivar"):
    print("condition:", condition)
    for problem in reading.find_issues(csv, condition):
        print(f"  {'error' if problem.fatal else 'note'}: {problem}")

# %%
# Fit
# ---
#
# A normalizing flow with the cultivar as condition. Without ``steps`` or
# ``minutes`` a family takes as long as it needs; the few steps here keep this page
# quick. With ``out=`` it is kept in a run folder.

model = pf.fit(
    csv, "normalizing_flow", condition="cultivar", steps=300, out=folder / "run"
)
print(model)
print(*model.alarms, sep="\n")

# %%
# Draw rows
# ---------
#
# Samples come as the data were: the same columns, the same types, within the bounds
# you name in ``fit``. Without a condition they have the cultivars in the
# proportions of the data.

table = model.sample(500, seed=0)
print(table.column_names[:4], len(table))
data = pf.datasets.load("wine")
first, second = data.columns.index("alcohol"), data.columns.index("proline")


def points(axes, rows, mark, size, ink, label):
    """Two columns of some rows."""
    pairs = rows[:, [first, second]].T
    axes.plot(*pairs, mark, ms=size, color=ink, mew=0, label=label)


figure, row = plt.subplots(
    1, 2, figsize=(7, 2.8), layout="constrained", sharey=True
)
points(row[0], data.x, ".", 5, style.DATA, "data")
points(row[0], model.draw(500, seed=0), ".", 3, style.MODEL, "samples")
for k, name in enumerate(np.unique(data.y)):
    rows = model.draw(150, name, seed=1)
    points(row[1], rows, style.MARKS[k], 3, style.LINES[k], name)
row[0].set(xlabel="alcohol", ylabel="proline", title="all cultivars")
row[1].set(xlabel="alcohol", title="samples of each cultivar")
for axes in row:
    axes.legend()

# %%
# Complete rows
# -------------
#
# Fix some columns and draw the others: how proline is distributed in a wine of 13 %
# alcohol, of each cultivar.

for name in np.unique(data.y):
    rows = model.draw(200, name, given={"alcohol": 13.0}, seed=2)
    low, middle, high = np.quantile(rows[:, second], [0.1, 0.5, 0.9])
    print(f"{name}: proline {middle:.0f}, between {low:.0f} and {high:.0f} in 80 %")

# %%
# Score, and find what is odd
# ---------------------------
#
# ``log_prob`` is in nats and in the units of the table, and says which kind of
# number it is: here a lower bound, because two columns hold whole numbers
# (:doc:`/likelihood`). ``flag`` raises a flag at a rate that you choose, calibrated
# on data the model was not fitted to, or as here on the model's own draws. The
# first of these five wines gets the alcohol of a light one and more proline than
# any.

odd = data.x[:5].copy()
odd[0, first], odd[0, second] = 11.0, 1680.0
flags = model.flag(odd, data.y[:5], rate=0.01)
print(model.likelihood, model.log_prob(odd, data.y[:5]).round(1))
print("flagged:", flags.flagged)

# %%
# Which family to trust?
# ----------------------
#
# All get the same data, budget and seeds, and are measured on rows that none has
# seen. The **floor** is what two sets of real rows score against each other: nobody
# can do better than that. Families are tied unless their intervals are apart, which
# 35 held-out wines seldom allow. Trust a family that is tied for the first rank and
# has no alarm; among these, the simplest.

families = ["gaussian", "gaussian_mixture", "kde", "normalizing_flow"]
result = pf.compare(csv, families, condition="cultivar", steps=200, progress=False)
print(result.text())

# %%
# ``result.save_report("comparison")`` writes the leaderboard, the training curves,
# samples and densities of all into one HTML file. The same on the command line is
# ``pushforward compare wines.csv --condition cultivar --out comparison``. Your own
# file: :doc:`/how-to/csv`. Where to be careful: :doc:`/limits`.
