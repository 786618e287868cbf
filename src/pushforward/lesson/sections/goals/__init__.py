"""Section 1 of the lesson: goals of generative models."""

from .. import Section
from . import anomalies, distributions, figures, paradigms

SECTION = Section(
    title="Goals of generative models",
    claims=[*distributions.CLAIMS, *anomalies.CLAIMS, *paradigms.CLAIMS],
    figures={
        "data_distribution": figures.draw_data_distribution,
        "typicality": figures.draw_typicality,
        "detection": figures.draw_detection_curve,
        "capabilities": figures.draw_capability_table,
    },
    notes={
        "A01": "Run from top to bottom the lesson stops at its second code block, which raises "
        "(claim 2.5-runs); the others run once the names they share are imported.",
        "A02": "The blocks use names that earlier blocks import. Every module here imports what it "
        "uses.",
        "A03": "The lesson draws from global generators without a seed. Every claim, figure and "
        "experiment here seeds torch's generator first and leaves the caller's as it was; a test "
        "runs each claim twice.",
        "A04": "The lesson trains nothing but one step of a GAN. Problem 2 trains VAEs, the other "
        "sections and problems the rest; `pushforward fit` trains every family.",
        "A05": "One arrow of section 4 was written in UTF-8 and read in another encoding.",
        "A06": "Section 5 counts time from data to noise and section 6 from noise to data. The "
        "library has one convention: t = 0 is data, t = 1 is noise, whatever the family; the "
        "lesson's flow matching runs in 1 - t. Noise is eps, a step size is h.",
        "A07": "The package that the registry has under the name stable-diffusion is another "
        "project, without a working release; `diffusers` runs Stable Diffusion.",
        "A08": "Named in the lesson and not cited: beta-VAE (Higgins et al., 2017), importance-"
        "weighted bounds (Burda et al., 2016), neural ODEs (Chen et al., 2018), FFJORD (Grathwohl "
        "et al., 2019), score matching (Hyvarinen, 2005; Vincent, 2011), score-based SDEs (Song et "
        "al., 2021), DDIM (Song et al., 2021), MALA (Besag, 1994), RealNVP (Dinh et al., 2017), "
        "MAF (Papamakarios et al., 2017), FID (Heusel et al., 2017). The docstrings cite them.",
        "A10c": "A diffusion model's density can be evaluated: claims 5.2-density and "
        "6.3-paradigms.",
        "A10d": "Noise prediction is one of several linear reparametrisations of one regression; "
        "the section on diffusion checks them against each other.",
        "A11": "Claims 1.1-precision and 1.1-histogram, figure data_distribution. Figures here are "
        "objects that no window manager keeps, so that none stays open.",
        "R3": "Figure data_distribution.",
        "R7": "Figure capabilities, written from the code of the families, and claim 1.3-table.",
    },
)
