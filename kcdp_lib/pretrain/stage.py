"""The training loop of every stage, and the record of what was trained.

Every step draws its batch from a generator seeded by (stage, step), so a resumed stage gives
exactly the same result.
"""

import json
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from kcdp_lib import checkpoints, paths
from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import corpus
from kcdp_lib.pretrain.task import Task

# Optimizer steps, and pictures (or texts) per step; chosen to fit six hours on two cores
STEPS = {
    "text": (1500, 128),
    "vae": (8000, 32),
    "unet": (3000, 64),
    "coca": (4200, 64),
}
PEAK = {"text": 2e-3, "vae": 2e-3, "unet": 1e-3, "coca": 1.2e-3}
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
        self.every = every
        self.steps, self.batch = STEPS[name]
        self.step = 0
        self.file = task.checkpoints / f"{name}.safetensors"
        schedule = repr((STEPS[name], PEAK[name]))
        self.key = paths.sha(schedule, task.knowledge, task.pictures, *made_from)[:12]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        # pre-trained parameters learn at a third of the rate
        slow = [p for p in slow if p.requires_grad]
        known = set(map(id, slow))
        fast = [p for p in self.parameters if id(p) not in known]
        groups = [{"params": fast, "scale": 1.0}, {"params": slow, "scale": 1 / 3}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=PEAK[name],
            betas=(0.9, 0.98),
            weight_decay=0.02,
            fused=True,
        )

    def learning_rate(self, step: int) -> float:
        """Return the rate: linear warm-up over the first 5%, cosine to a hundredth at the end."""
        rising = step / (0.05 * self.steps) + 0.01
        falling = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step / self.steps)))
        return PEAK[self.name] * min(rising, falling)

    def save(self, step: int) -> None:
        """Write weights, optimizer state and `step`, the next to run (`kcdp_lib.checkpoints`)."""
        module = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        about = {"step": str(step), "key": self.key}
        checkpoints.save(self.file, about, self.optimizer, module=module)

    def load(self) -> int:
        """Load the checkpoint, if there is one; return the next step."""
        about, tensors = checkpoints.read(self.file)
        if about.get("key") != self.key:
            if about:
                print(f"{self.name}: the checkpoint is of another training; this begins anew")
            return 0
        self.module.load_state_dict(checkpoints.part_of(tensors, "module"))
        checkpoints.restore_optimizer(self.optimizer, tensors)
        return int(about["step"])

    def run(self, loss_of: Callable[[np.random.Generator, int], torch.Tensor]) -> None:
        """Train with `loss_of(rng, batch)`, one step's loss [] on `batch` pictures or texts.

        The last state is kept on disk.
        """
        start, losses = self.load(), []
        self.module.train()
        for step in paths.progress(range(start, self.steps), self.name):
            self.step = step
            rng = np.random.default_rng([6, sorted(STEPS).index(self.name), step])
            torch.manual_seed(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step) * group["scale"]
            loss = loss_of(rng, self.batch)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            losses.append(loss.item())
            if (step + 1) % self.every == 0 or step + 1 == self.steps:
                self.save(step + 1)
                mean = np.mean(losses[-self.every :])
                print(f"{self.name}: step {step + 1} of {self.steps}, loss {mean:.4f}", flush=True)
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
    if name in STEPS:
        config = json.loads((task.out / RECORD).read_text(encoding="utf-8"))
        config["steps"][name], config["learning_rate"][name] = STEPS[name], PEAK[name]
        paths.atomic_write(task.out / RECORD, json.dumps(config, indent=1))
