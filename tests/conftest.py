import numpy as np
import pandas as pd
import pytest
import torch

import pushforward as pf
from pushforward.data.builtin import datasets

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def fits():
    """Models of each kind of data: a closed form, and a flow that has hardly been trained."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    blobs, numbers = datasets.load("8gaussians", 400), datasets.load("lesson", 400)
    hostile = pd.DataFrame(
        rng.normal(size=(200, 4)),
        columns=["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$x_1$", "price"],
    )
    data = {
        "line": (numbers.x, numbers),
        "plane": (blobs.x, blobs),
        "table": (hostile, None),
        "images": (rng.normal(size=(120, 8, 8)), None),
    }

    def models(x):
        flow = pf.fit(x, "flow_matching", progress=False, width=16, depth=1, steps=12)
        flow.config["usual"] = 12  # judged as if that were enough
        return {"gaussian": pf.fit(x, "gaussian", progress=False), "flow_matching": flow}

    return {kind: (x, models(x), known) for kind, (x, known) in data.items()}
