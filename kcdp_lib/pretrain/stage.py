"""The training loop of every stage, and the record of what was trained.

Every step draws its batch from a generator seeded by (stage, step), so a resumed stage gives
exactly the same result.
"""

import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from kcdp_lib import checkpoints, paths
from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import corpus
from kcdp_lib.pretrain.task import Task


class Plan(NamedTuple):
    """The length of a stage, in optimizer steps and pictures (or texts) per step, and its rate."""

    steps: int
    batch: int
    peak: float


# "cpu" fits into six hours on two cores, and made the shipped weights. "gpu" is meant for ten
# minutes of one large card and has not run on one yet: its batches fill the card, its rates grow
# with the root of the batch.
BUDGETS = {
    "cpu": {
        "text": Plan(1500, 128, 2e-3),
        "vae": Plan(8000, 32, 2e-3),
        "unet": Plan(3000, 64, 1e-3),
        "coca": Plan(4200, 64, 1.2e-3),
    },
    "gpu": {
        "text": Plan(1500, 512, 4e-3),
        "vae": Plan(2500, 256, 5e-3),
        "unet": Plan(3000, 1024, 4e-3),
        "coca": Plan(2000, 512, 3e-3),
    },
}
EMA = 0.995  # of the weights that "gpu" keeps: few large steps end far from their mean
RECORD = "pretraining.json"


def key_of(module: nn.Module) -> str:
    """Return 12 hex digits of the hash of a module's weights."""
    tensors = module.state_dict().values()
    return paths.sha(*(value.cpu().numpy().tobytes() for value in tensors))[:12]


class Stage:
    """Train one stage: AdamW with warm-up and cosine, and a checkpoint every `every` steps.

    The same command resumes it. A checkpoint of another schedule, or of other inputs than
    `made_from`, is ignored.
    """

    def __init__(
        self,
        name: str,
        task: Task,
        module: nn.Module,
        slow: Sequence[nn.Parameter] = (),
        every: int = 200,
        made_from: Sequence[str] = (),
    ):
        self.name = name
        self.module = module.to(task.device)
        self.device = task.device
        self.every = every
        self.steps, self.batch, self.peak = BUDGETS[task.budget][name]
        self.step = 0
        self.file = task.checkpoints / f"{name}.safetensors"
        self.averaged: AveragedModel | None = None
        if task.budget == "gpu":
            self.averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(EMA))
        schedule = repr(((self.steps, self.batch), self.peak))
        self.key = paths.sha(schedule, task.knowledge, task.pictures, *made_from)[:12]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        # pre-trained parameters learn at a third of the rate
        slow = [p for p in slow if p.requires_grad]
        known = set(map(id, slow))
        fast = [p for p in self.parameters if id(p) not in known]
        groups = [{"params": fast, "scale": 1.0}, {"params": slow, "scale": 1 / 3}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=self.peak,
            betas=(0.9, 0.98),
            weight_decay=0.02,
            fused=True,
        )

    def learning_rate(self, step: int) -> float:
        """Return the rate: linear warm-up over the first 5%, cosine to a hundredth at the end."""
        rising = step / (0.05 * self.steps) + 0.01
        falling = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step / self.steps)))
        return self.peak * min(rising, falling)

    def save(self, step: int) -> None:
        """Write weights, optimizer state and `step`, the next to run (`kcdp_lib.checkpoints`)."""
        about = {"step": str(step), "key": self.key}
        parts = {"module": self.module, "averaged": self.averaged}
        states = {
            part: {name: value.detach().cpu() for name, value in of.state_dict().items()}
            for part, of in parts.items()
            if of is not None
        }
        checkpoints.save(self.file, about, self.optimizer, **states)

    def load(self) -> int:
        """Load the checkpoint, if there is one; return the next step."""
        about, tensors = checkpoints.read(self.file)
        if about.get("key") != self.key:
            if about:
                print(f"{self.name}: the checkpoint is of another training; this begins anew")
            return 0
        self.module.load_state_dict(checkpoints.part_of(tensors, "module"))
        if self.averaged:
            self.averaged.load_state_dict(checkpoints.part_of(tensors, "averaged"))
        checkpoints.restore_optimizer(self.optimizer, tensors)
        return int(about["step"])

    def run(self, loss_of: Callable[[np.random.Generator, int], torch.Tensor]) -> None:
        """Train with `loss_of(rng, batch)`, one step's loss [] on `batch` pictures or texts.

        The last state is kept on disk. On a GPU the networks run in bfloat16; with the budget
        "gpu", the module ends with its averaged weights.
        """
        on_gpu = self.device == "cuda"
        start, losses = self.load(), []
        self.module.train()
        for step in paths.progress(range(start, self.steps), self.name):
            self.step = step
            rng = np.random.default_rng([6, sorted(BUDGETS["cpu"]).index(self.name), step])
            torch.manual_seed(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step) * group["scale"]
            with torch.autocast(self.device, torch.bfloat16, enabled=on_gpu):
                loss = loss_of(rng, self.batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            if self.averaged:
                self.averaged.update_parameters(self.module)
            losses.append(loss.detach())  # reading it here would make a GPU wait
            if (step + 1) % self.every == 0 or step + 1 == self.steps:
                self.save(step + 1)
                mean = torch.stack(losses[-self.every :]).mean()
                print(f"{self.name}: step {step + 1} of {self.steps}, loss {mean:.4f}", flush=True)
        if self.averaged:
            self.module.load_state_dict(self.averaged.module.state_dict())
        self.module.eval()


def report(task: Task) -> None:
    """Start the record pretraining.json: corpus, knowledge, and sets left out."""
    config = {
        "steps": {},
        "learning_rate": {},
        "corpus": corpus.SHARES,
        "seed": corpus.SEED,
        "knowledge": task.knowledge,
        "without": task.without,
        "budget": task.budget,
    }
    paths.atomic_write(task.out / RECORD, json.dumps(config, indent=1))


def check(task: Task) -> None:
    """Check that the folder's models were trained for the same task. KCDPError if not."""
    config = json.loads((task.out / RECORD).read_text(encoding="utf-8"))
    if (config["knowledge"], tuple(config["without"])) != (task.knowledge, task.without):
        raise KCDPError(
            f"{task.out} holds models with knowledge by {config['knowledge']}, without "
            f"{' and '.join(config['without']) or 'nothing'}; give the same, or another --out."
        )


def record(task: Task, name: str) -> None:
    """Add a finished stage to the record: its steps, batch size and learning rate."""
    if plan := BUDGETS[task.budget].get(name):
        config = json.loads((task.out / RECORD).read_text(encoding="utf-8"))
        config["steps"][name] = plan.steps, plan.batch
        config["learning_rate"][name] = plan.peak
        paths.atomic_write(task.out / RECORD, json.dumps(config, indent=1))
