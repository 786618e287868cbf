"""Inject known bugs one at a time; each must make a named test fail: ``make mutants``.

The bugs are those that implementations of these models have had: wrong signs, lost factors, shared
noise, indices off by one. A bug that no test notices is printed, and the exit code is 1.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from shutil import copytree
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent


class Mutant(NamedTuple):
    """A bug: in ``file``, ``old`` becomes ``new``; ``test`` must notice.

    Arguments:
        file: Relative to the package.
        old: Text that occurs there once.
        new: What takes its place.
        test: A test file, relative to tests/.
        k: Which of its tests, as pytest's -k has it.
    """

    file: str
    old: str
    new: str
    test: str
    k: str = ""


MUTANTS = [
    # bounds and the variational autoencoder
    Mutant(
        "theory/bounds.py",
        "+ q.variance - 1) / 2 - sum_event",
        "+ q.variance - 1) / 2 + sum_event",
        "theory/test_bounds.py",
        "rate",
    ),
    Mutant(
        "theory/bounds.py",
        "(q.mean.square() + q.variance",
        "(q.mean.square() + q.scale",
        "theory/test_bounds.py",
        "rate",
    ),
    Mutant(
        "theory/bounds.py",
        "q.variance - 1) / 2",
        "q.variance - 1)",
        "theory/test_bounds.py",
        "rate",
    ),
    Mutant(
        "theory/bounds.py",
        "log_w.logsumexp(0) - math.log(len(log_w))",
        "log_w.mean(0)",
        "theory/test_bounds.py",
        "importance",
    ),
    Mutant(
        "theory/bounds.py",
        "log_w.logsumexp(0) - math.log(len(log_w))",
        "log_w.logsumexp(0)",
        "theory/test_bounds.py",
        "importance",
    ),
    Mutant(
        "families/vae.py",
        "log_prior - q.log_prob(z).sum(-1)",
        "log_prior",
        "families/test_vae.py",
        "single_weight",
    ),
    # adversarial games
    Mutant(
        "theory/adversarial.py",
        '"real": softplus(-real).mean()',
        '"real": softplus(real).mean()',
        "theory/test_adversarial.py",
        "discriminator",
    ),
    Mutant(
        "theory/adversarial.py",
        "return (value + math.log(4)) / 2",
        "return value + math.log(4)",
        "theory/test_adversarial.py",
    ),
    Mutant(
        "theory/adversarial.py",
        "return softplus(-fake).mean()",
        "return logsigmoid(-fake).mean()",
        "theory/test_adversarial.py",
        "gradient",
    ),
    Mutant(
        "theory/adversarial.py",
        "return real.mean() - fake.mean()",
        "return fake.mean() - real.mean()",
        "families/test_wgan_gp.py",
        "slope or climbs",
    ),
    Mutant(
        "theory/adversarial.py",
        "append_dims(torch.rand_like(real.flatten(1)[:, 0]), real)",
        "torch.rand(())",
        "theory/test_adversarial.py",
        "between",
    ),
    Mutant(
        "theory/adversarial.py",
        "append_dims(torch.rand_like(real.flatten(1)[:, 0]), real)",
        "torch.rand_like(real)",
        "theory/test_adversarial.py",
        "between",
    ),
    Mutant(
        "theory/adversarial.py",
        "x, create_graph=True)",
        "x, create_graph=False)",
        "theory/test_adversarial.py",
        "penal",
    ),
    Mutant(
        "theory/adversarial.py",
        "torch.linalg.vector_norm(input_gradient(critic, x).flatten(1), dim=1) - 1",
        "input_gradient(critic, x).flatten(1).square().sum(1) - 1",
        "theory/test_adversarial.py",
        "penal",
    ),
    Mutant(
        "theory/adversarial.py",
        "torch.linalg.vector_norm(input_gradient(critic, x).flatten(1), dim=1) - 1",
        "input_gradient(critic, x).flatten(1).square().sum(1).sqrt() - 1",
        "theory/test_adversarial.py",
        "zero_gradient",
    ),
    Mutant(
        "theory/adversarial.py",
        ".square().sum(1).mean() / 2",
        ".square().sum(1).mean()",
        "theory/test_adversarial.py",
        "penalties",
    ),
    Mutant(
        "families/gan.py",
        "        with torch.no_grad():\n            fake = self.sample(len(x), c)",
        "        fake = self.sample(len(x), c)",
        "families/test_gan.py",
        "no_gradient",
    ),
    Mutant(
        "families/wgan.py",
        "return -fake.mean()",
        "return fake.mean()",
        "families/test_wgan_gp.py",
        "climbs",
    ),
    # paths and tables
    Mutant(
        "theory/paths.py",
        "return 2 * sigma * (self.rates(t)[1] - self.drift(t) * sigma)",
        "return sigma * (self.rates(t)[1] - self.drift(t) * sigma)",
        "theory/test_paths.py",
        "sde",
    ),
    Mutant(
        "theory/paths.py",
        "return torch.exp(-total / 2), torch.sqrt(-torch.expm1(-total))",
        "return torch.exp(-total), torch.sqrt(-torch.expm1(-total))",
        "theory/test_paths.py",
    ),
    Mutant(
        "theory/ddpm_schedule.py",
        "-torch.log1p(-self.betas).cumsum(0)",
        "self.betas.cumsum(0)",
        "theory/test_ddpm_schedule.py",
    ),
    Mutant(
        "theory/ddpm_schedule.py",
        "return self.betas[self.index(k) - 1]",
        "return self.betas[self.index(k) - 2]",
        "theory/test_ddpm_schedule.py",
        "posterior",
    ),
    Mutant(
        "theory/ddpm_schedule.py",
        "torch.sqrt(1 - beta) * before / now",
        "(1 - beta) * before / now",
        "theory/test_ddpm_schedule.py",
        "posterior",
    ),
    Mutant(
        "theory/ddpm_schedule.py",
        "before / now * beta)",
        "beta)",
        "theory/test_ddpm_schedule.py",
        "posterior",
    ),
    # predictions, denoisers, guidance
    Mutant(
        "theory/predictions.py",
        "    return -sigma, alpha",
        "    return sigma, alpha",
        "theory/test_predictions.py",
    ),
    Mutant(
        "theory/predictions.py",
        "torch.zeros_like(t), -1 / path.sigma(t)",
        "torch.zeros_like(t), 1 / path.sigma(t)",
        "theory/test_predictions.py",
        "gradient",
    ),
    Mutant(
        "theory/denoisers.py",
        "return -self(x_t, t, c).eps / append_dims(self.path.sigma(t), x_t)",
        "return self(x_t, t, c).eps / append_dims(self.path.sigma(t), x_t)",
        "theory/test_denoisers.py",
        "velocity_is",
    ),
    Mutant(
        "theory/guidance.py",
        "torch.lerp(negative, positive, w)",
        "torch.lerp(positive, negative, w)",
        "theory/test_denoisers.py",
        "guidance",
    ),
    Mutant(
        "theory/guidance.py",
        "(low <= level) & (level <= high)",
        "(low <= level)",
        "theory/test_denoisers.py",
        "interval or called",
    ),
    Mutant(
        "theory/completion.py",
        "mean = mean + covariance(w)",
        "mean = mean - covariance(w)",
        "theory/test_completion.py",
        "",
    ),
    Mutant(
        "theory/completion.py",
        "math.tan(math.pi * strength / 2)",
        "math.tan(math.pi * strength / 4)",
        "theory/test_editing_theory.py",
        "strength",
    ),
    Mutant(
        "theory/completion.py",
        "((1 - w) * angle).sin() * a",
        "(1 - w) * angle.sin() * a",
        "theory/test_editing_theory.py",
        "circle",
    ),
    Mutant(
        "model.py",
        "c * (torch.rand_like(c[:, :1]) >= self.unconditional)",
        "c * (torch.rand_like(c) >= self.unconditional)",
        "test_diffusion.py",
        "whole_conditions",
    ),
    # samplers
    Mutant(
        "theory/denoisers.py",
        "(self.alpha_t * self.sigma_s / (self.alpha_s * self.sigma_t)) ** 2",
        "(self.sigma_s / self.sigma_t) ** 2",
        "theory/test_samplers.py",
        "ancestral or eta",
    ),
    Mutant(
        "theory/samplers.py",
        "x = torch.add(x, ahead - estimate.eps, alpha=h / 2)",
        "x = torch.add(x, ahead - estimate.eps, alpha=h)",
        "theory/test_samplers.py",
        "order",
    ),
    Mutant(
        "theory/samplers.py",
        "torch.lerp(now, before, -h / (2 * h_before))",
        "torch.lerp(now, before, -h / h_before)",
        "theory/test_samplers.py",
        "order or published",
    ),
    Mutant(
        "theory/samplers.py",
        "[23 / 12, -16 / 12, 5 / 12]",
        "[23 / 12, -16 / 12, 4 / 12]",
        "theory/test_samplers.py",
        "published or gains",
    ),
    Mutant(
        "theory/samplers.py",
        "x = (1 + f * h) * x + (g2 * h / step.sigma_t) * estimate.eps",
        "x = (1 + f * h) * x + (g2 * h / 2 / step.sigma_t) * estimate.eps",
        "theory/test_samplers.py",
        "weak_order",
    ),
    # Langevin dynamics and score matching
    Mutant(
        "theory/langevin.py",
        "        x = torch.add(x, torch.randn_like(x), alpha=math.sqrt(2 * h))",
        "        x = torch.add(x, torch.randn_like(x), alpha=math.sqrt(h))",
        "theory/test_langevin.py",
        "transient or recursion",
    ),
    Mutant(
        "theory/langevin.py",
        "        x = torch.add(x, score(x), alpha=h)",
        "        x = torch.add(x, score(x), alpha=h / 2)",
        "theory/test_langevin.py",
        "transient or recursion",
    ),
    Mutant(
        "theory/langevin.py",
        "ratio = value_y - value + sum_event(noise.square()) / 2 - back",
        "ratio = value_y - value",
        "theory/test_langevin.py",
        "mala",
    ),
    Mutant(
        "theory/langevin.py",
        "limit = 2 / float(",
        "limit = 1 / float(",
        "theory/test_langevin.py",
        "limit",
    ),
    # bound, variance and weights of DDPM; score matching
    Mutant(
        "theory/ddpm_schedule.py",
        "return beta * ratio ** (1 - v)",
        "return beta * ratio**v",
        "theory/test_ddpm_schedule.py",
        "variances",
    ),
    Mutant(
        "theory/ddpm_schedule.py",
        "gain.square() / (2 * path",
        "gain.square() / (path",
        "families/test_ddpm.py",
        "weights_of",
    ),
    Mutant(
        "families/ddpm.py",
        "error / variance + variance.log()",
        "error / variance - variance.log()",
        "families/test_ddpm.py",
        "exact",
    ),
    Mutant(
        "families/ddpm.py",
        "torch.where(first, 0.0, true)",
        "0.0",
        "families/test_ddpm.py",
        "exact",
    ),
    Mutant(
        "families/ddpm.py",
        "with torch.no_grad():",
        "with torch.enable_grad():",
        "families/test_ddpm.py",
        "learned_variance_is",
    ),
    Mutant(
        "families/ddpm.py",
        "self.variance} | given if run",
        "0.5} | given if run",
        "families/test_ddpm.py",
        "reaches",
    ),
    Mutant(
        "theory/score_matching.py",
        "return trace + sum_event(s.square()) / 2",
        "return trace + sum_event(s.square())",
        "theory/test_score_losses.py",
        "implicit",
    ),
    Mutant(
        "theory/score_matching.py",
        "+ eps / sigma).square()",
        "- eps / sigma).square()",
        "theory/test_score_losses.py",
        "denoising",
    ),
    Mutant(
        "theory/score_matching.py",
        "along.square() / 2",
        "along.square()",
        "theory/test_score_losses.py",
        "slices",
    ),
    Mutant(
        "theory/exact/divergences.py",
        "(B @ p.covariance @ B)",
        "(B @ q.covariance @ B)",
        "theory/test_score_losses.py",
        "fisher",
    ),
    Mutant(
        "families/ncsn.py",
        ".x / 2)",
        ".x)",
        "families/test_ncsn.py",
        "nearest",
    ),
    Mutant(
        "families/ncsn.py",
        "norm.cdf(offset - 3 * g)",
        "norm.cdf(offset - 6 * g)",
        "families/test_ncsn.py",
        "overlap",
    ),
    Mutant(
        "families/edm.py",
        "normal.icdf(torch.lerp(low, high, u)).exp()",
        "torch.lerp(normal.icdf(low), normal.icdf(high), u).exp()",
        "families/test_edm.py",
        "lognormal",
    ),
    # densities along a flow
    Mutant(
        "theory/densities.py",
        "return LogDensity(base(z) + trace, error, nfe)",
        "return LogDensity(base(z) - trace, error, nfe)",
        "theory/test_densities.py",
        "linear_flow",
    ),
    Mutant(
        "theory/densities.py",
        "return x, LogDensity(base(z) - trace, error, nfe)",
        "return x, LogDensity(base(z) + trace, error, nfe)",
        "theory/test_densities.py",
        "pushed",
    ),
    Mutant(
        "theory/densities.py",
        ").to(x) * 2 - 1",
        ").to(x)",
        "theory/test_densities.py",
        "hutchinson",
    ),
    # transport and metrics
    # the trainer, conditions, completion
    Mutant(
        "training/optimizer.py",
        "mean.lerp_(weight, 1 - decay)",
        "mean.lerp_(weight, decay)",
        "training/test_trainer.py",
    ),
    Mutant(
        "training/processes.py",
        "        gradient /= self.count\n",
        "",
        "training/test_processes.py",
        "joined_batch",
    ),
    Mutant(
        "data/transforms.py",
        "scatter = scatter + own + between * (n * m / (n + m))",
        "scatter = scatter + own",
        "training/test_minibatches.py",
        "statistics",
    ),
    Mutant(
        "training/optimizer.py",
        "            part.grad = None\n",
        "            pass\n",
        "training/test_trainer.py",
    ),
    Mutant(
        "theory/completion.py",
        "log_w = log_w - sum_event(torch.where(known, x_s - mean, 0.0).square()) / (2 * size**2)",
        "log_w = log_w * 1",
        "theory/test_completion.py",
        "particle_filter_draws",
    ),
    Mutant(
        "theory/completion.py",
        "log_w = (log_p(proposals) - log_q(proposals))",
        "log_w = (log_p(proposals) * 1)",
        "theory/test_completion.py",
        "importance",
    ),
    Mutant(
        "families/gaussian.py",
        "log_w = (log_w + _component_log_densities(away, root)).log_softmax(1)",
        "log_w = log_w + 0 * _component_log_densities(away, root)",
        "families/test_baselines.py",
        "number",
    ),
    # flows, autoregression
    Mutant(
        "families/autoregressive.py",
        "torch.stack(each).logsumexp(0) - math.log(len(each))",
        "torch.stack(each).mean(0)",
        "families/test_autoregressive.py",
        "masses or averaged",
    ),
    Mutant(
        "networks/likelihoods.py",
        "(x - h[..., 0]) * (-log_s).exp()) - log_s",
        "(x - h[..., 0]) * (-log_s).exp())",
        "families/test_autoregressive.py",
        "integrate",
    ),
    # transforms between data and the model's space
    Mutant(
        "data/transforms.py",
        "return z, sum_event(width - up - down)",
        "return z, sum_event(width + up + down)",
        "data/test_transforms.py",
    ),
    Mutant(
        "data/transforms.py",
        "log_det = -scale.log().expand(x.shape[1:]).sum()",
        "log_det = scale.log().expand(x.shape[1:]).sum()",
        "data/test_transforms.py",
    ),
]


def copies(source: Path, mutant: Mutant) -> str:
    """The package with the bug in it, in a temporary folder; the folder's name."""
    folder = tempfile.mkdtemp()
    copytree(source, Path(folder) / "pushforward")
    file = Path(folder) / "pushforward" / mutant.file
    text = file.read_text()
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file}: {text.count(mutant.old)} times {mutant.old!r}, not once")
    file.write_text(text.replace(mutant.old, mutant.new))
    return folder


def noticed(mutant: Mutant) -> bool:
    """Whether the test fails; in a child process, which has torch already."""
    folder = copies(ROOT / "src" / "pushforward", mutant)
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    os.chdir(ROOT)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1), os.dup2(silence, 2)
    sys.path.insert(0, folder)
    import pytest

    words = ["-x", "-q", "-p", "no:cacheprovider", f"tests/{mutant.test}"]
    code = pytest.main([*words, *(["-k", mutant.k] if mutant.k else [])])
    import pushforward

    right = pushforward.__file__.startswith(folder)
    os._exit(int(code) if right else 70)


def main() -> int:
    """Try every bug, or those whose file contains one of the given words."""
    import scipy.stats  # noqa: F401
    import torch

    torch.set_num_threads(1)
    words, missed, began = sys.argv[1:], [], time.monotonic()
    chosen = [m for m in MUTANTS if not words or any(w in m.file for w in words)]
    for mutant in chosen:
        caught = noticed(mutant)
        if not caught:
            missed.append(mutant)
        print(
            "caught" if caught else "MISSED",
            mutant.file,
            "|",
            " ".join(mutant.new.split())[:90],
            flush=True,
        )
    print(
        f"{len(chosen) - len(missed)} of {len(chosen)} caught in {time.monotonic() - began:.0f} s"
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
