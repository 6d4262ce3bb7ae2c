"""Everything a run can be told.

A preset (names and sizes of the models), a recipe (switches of the method) and the parameters of
one run.

A preset is nothing but names and numbers, a recipe nothing but switches: `tiny` and `sd15`, `paper`
and `released` run through the same lines.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import asdict, dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import TINY, at_revision, resolve
from kcdp_lib.world.causes import TAXONOMIES, read_dials


@dataclass(frozen=True)
class Preset:
    """Where the frozen models lie and how large everything is (chapters 02 and 03).

    `sd15` takes F and the experts' width from the released code. LoRA's rank, batches, epochs and
      rates are ours: the paper's are not known to us.
    """

    name: str
    # A diffusers pipeline: a folder, or a hub id at a commit, "ORG/NAME@HASH" (`paths.at_revision`)
    diffusion: str
    vlm: str  # open_clip: "local-dir:FOLDER" or an architecture's name
    # The weights where `vlm` is an architecture's name: a folder, or a hub id at a commit; else
    # None
    vlm_pretrained: str | None
    # An InstructBLIP that writes the captions (a folder, or a hub id at a commit); None: `vlm` does
    writer: str | None
    parser: str  # of captions into triplets: "rules", or a spaCy model
    variant: (
        str | None
    )  # diffusers' variant of the stored weights ("fp16"), None for the plain files
    image_size: int  # pixels, side of the square the VAE sees
    batch_size: int  # pictures of each domain in one optimizer step
    epochs: int  # passes over the source's training split
    fpn_channels: int  # F; the visual feature v has 4 F numbers
    expert_channels: int  # hidden width of one expert
    lora_rank: int
    learning_rate: float  # peak, for everything that is trained


PRESETS = {
    "tiny": Preset(
        name="tiny",
        diffusion=str(TINY / "diffusion"),
        vlm=f"local-dir:{TINY / 'vlm'}",
        vlm_pretrained=None,
        writer=None,
        parser="rules",
        variant=None,
        image_size=64,
        batch_size=32,
        epochs=4,
        fpn_channels=64,
        expert_channels=128,
        lora_rank=8,
        learning_rate=5e-3,
    ),
    "sd15": Preset(
        name="sd15",
        diffusion="stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        vlm="coca_ViT-L-14",
        vlm_pretrained="laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k@f895105fb18cf5ea3ba7a1172966e4cc0ad8d743",
        writer=None,
        parser="rules",
        variant="fp16",
        image_size=512,
        batch_size=8,
        epochs=3,
        fpn_channels=256,
        expert_channels=128,
        lora_rank=8,
        learning_rate=1e-4,
    ),
}
# captions as in the paper: free English, which the rules read badly (`benchmarks/triplets.py`)
PRESETS["sd15-instructblip"] = replace(
    PRESETS["sd15"],
    name="sd15-instructblip",
    writer="Salesforce/instructblip-flan-t5-xl@bf9bd58cb3bb06e88c03b80f9cc346b90094bc6d",
    parser="en_core_web_sm",
)
# of a repository, what the loaders read, as options of `hf download`: most hold the same weights
# several times over, Stable Diffusion's more than forty gigabytes
FILES = {
    "diffusion": (
        '--include "*/config.json" --include "*/*.fp16.safetensors" --include "tokenizer/*" '
        '--include "scheduler/*" --exclude "safety_checker/*"'
    ),
    "vlm_pretrained": '--include "*.safetensors"',
    "writer": '--exclude "*.bin"',
}


def of_hub(preset: Preset) -> dict[str, tuple[str, str]]:
    """{field of the preset: (hub id, commit)} of the models that it takes from the hub."""
    named = {part: at_revision(getattr(preset, part) or "") for part in FILES}
    return {part: (hub, commit) for part, (hub, commit) in named.items() if commit}


def in_folder(preset: Preset, models: str | Path | None) -> Preset:
    """The preset with the hub's models replaced by folders below `models`, each under its hub id.

    What `hf download ORG/NAME --local-dir MODELS/ORG/NAME` leaves. None: the preset itself.
    """
    if models is None:
        return preset
    return replace(
        preset, **{part: str(resolve(models) / hub) for part, (hub, _) in of_hub(preset).items()}
    )


def how_to_get(name: str) -> str:
    """What to do where the weights called `name` are missing, a folder or a hub id at its commit.

    Half a sentence, with the command.
    """
    folder = Path(name.removeprefix("local-dir:"))
    if folder.is_relative_to(TINY):
        return (
            "bring the built-in weights back by `git checkout kcdp_lib/models`, or train them by "
            "`make pretrain`"
        )
    known = {
        hub: (commit, f" {FILES[part]}")
        for preset in PRESETS.values()
        for part, (hub, commit) in of_hub(preset).items()
    }
    (hub, commit), where = at_revision(name), ""
    if not commit:  # one of `in_folder` has the hub id at its end
        hub, where = "/".join(folder.parts[-2:]), f" --local-dir {shlex.quote(str(folder))}"
        commit, _ = known.get(hub, (None, ""))
    if commit:
        _, files = known.get(hub, (None, ""))
        return f"download it by `hf download {hub} --revision {commit}{files}{where}`"
    return (
        "give a folder that is complete, with weights in safetensors, or a hub id at its commit, "
        "ORG/NAME@HASH"
    )


@dataclass(frozen=True)
class Recipe:
    """The differences between what the paper draws and what the released code computes, one switch
    each.

    "figure" marks what the paper's figure or text says, "ours" what we chose where it is silent.
    The chapter "Paper, released code, this book" measures each.
    """

    name: str  # as the user wrote it, see `read_recipe`
    # "symmetric": [-1, 1], the VAE's own (ours) | "imagenet_twice": ImageNet mean/std, applied
    # twice
    image_range: str
    latent_scaling: bool  # multiply latents by the VAE's scaling factor (ours)
    # "lora": adapters on attn2, the UNet frozen (figure) | "unet": the whole UNet | "heads":
    # neither, its maps are computed once
    trained: str
    attention_gradient: bool  # do the cross-attention maps carry gradient (ours)
    knowledge_in_moe: bool  # does the predictor see k as well as v (figure)
    gate_renormalised: bool  # the two chosen gate values sum to one (ours)
    balance: (
        str  # "load": experts get equal shares (ours) | "rank_std": standard deviation of rank sums
    )
    source_loss_count: int  # how often the source cross-entropy enters the sum (figure: once)
    # "spaced": alone, mask-aware mean, padding hidden everywhere (ours) | "glued": no spaces,
    # summed, padding is text like any other
    triplet_text: str
    cliea_masked: bool  # is padding hidden from CLIEA's attention and mean (ours)
    # "curriculum": warm-up, then confident and class-balanced (ours) | "raw": argmax from the first
    # step | "priors": curriculum, see `PseudoLabeller`
    pseudo_labels: str
    # "cosine": warm-up to the preset's rate, then cosine by step (ours) | "constant": 1e-5
    # throughout
    learning_rate: str
    shuffled: bool  # shuffle all pictures (ours) | stored order, first half only
    # Beyond the paper, in "best" alone (the chapter "A fair comparison"):
    embeddings: bool = (
        False  # are the VLM's embeddings of picture and caption part of what is seen, beside v
    )
    domain_norm: bool = (
        False  # is what experts and CLIEA read standardised, each domain by its own averages
    )
    # Who labels the target: "similarities": CLIEA's (figure) | "answer": all of `KCDP.answer` |
    # "experts" | "vlm": the VLM asked directly
    labelled_by: str = "similarities"
    # What can be taken away or exchanged, and is nobody's recipe (the same chapter measures it):
    # "both": caption and triplets (figure) | "caption" | "triplets" | "none" | "another": that of
    # another picture
    knowledge: str = "both"
    # "diffusion": the pre-trained UNet (figure) | "no_attention": without its attention maps |
    # "untrained": with random weights | "blind": no map at all
    eye: str = "diffusion"
    timestep: int = (
        1  # t at which the UNet looks (1: released); at later ones the latents get their noise
    )
    lora_rank: int | None = None  # None: the preset's
    # What L_ccl compares a picture with: "counterfactual": its knowledge under each prompt (figure)
    # | "prompts" alone | "none": there is no L_ccl
    alignment: str = "counterfactual"

    @property
    def looks_once(self) -> bool:
        """Is nothing trained before the four maps, so that they are computed once for each picture?"""
        return self.trained == "heads" and self.eye != "blind"


RECIPES = {
    "paper": Recipe(
        name="paper",
        image_range="symmetric",
        latent_scaling=True,
        trained="lora",
        attention_gradient=True,
        knowledge_in_moe=True,
        gate_renormalised=True,
        balance="load",
        source_loss_count=1,
        triplet_text="spaced",
        cliea_masked=True,
        pseudo_labels="curriculum",
        learning_rate="cosine",
        shuffled=True,
    ),
    "released": Recipe(
        name="released",
        image_range="imagenet_twice",
        latent_scaling=False,
        trained="unet",
        attention_gradient=False,
        knowledge_in_moe=False,
        gate_renormalised=False,
        balance="rank_std",
        source_loss_count=2,
        triplet_text="glued",
        cliea_masked=False,
        pseudo_labels="raw",
        learning_rate="constant",
        shuffled=False,
    ),
}
RECIPES["best"] = replace(
    RECIPES["paper"], name="best", embeddings=True, domain_norm=True, labelled_by="answer"
)  # chosen by `benchmarks/grid.py develop`
FURTHER = {  # values that no recipe has: "best, trained=heads"
    "trained": ("heads",),
    "pseudo_labels": ("priors",),
    "labelled_by": ("experts", "vlm"),
    "knowledge": ("caption", "triplets", "none", "another"),
    "eye": ("no_attention", "untrained", "blind"),
    "timestep": (50, 250, 500),
    "lora_rank": (1, 2, 32),
    "alignment": ("prompts", "none"),
}


def _differing(one: str, other: str) -> tuple[str, ...]:
    return tuple(
        field.name
        for field in fields(Recipe)
        if field.name != "name"
        and getattr(RECIPES[one], field.name) != getattr(RECIPES[other], field.name)
    )


SWITCHES, BEYOND = _differing("paper", "released"), _differing("paper", "best")
SETTABLE = tuple(
    dict.fromkeys((*SWITCHES, *BEYOND, *FURTHER))
)  # what may stand behind a recipe's name


def read_recipe(text: str) -> Recipe:
    """A recipe by name, with single switches set otherwise where wanted.

    "paper", or "paper, balance=rank_std, shuffled=False".

    Raises KCDPError naming what is not known and what it may be.
    """
    name, *changes = (part.strip() for part in str(text).split(","))
    _one_of("recipe", name, RECIPES)
    told = {}
    for switch, _, value in (change.partition("=") for change in changes):
        _one_of("switch of the recipe", switch.strip(), SETTABLE)
        values = {
            str(value): value
            for value in (
                *(getattr(recipe, switch.strip()) for recipe in RECIPES.values()),
                *FURTHER.get(switch.strip(), ()),
            )
        }
        _one_of(switch.strip(), value.strip(), values)
        told[switch.strip()] = values[value.strip()]
    return replace(RECIPES[name], name=str(text), **told)


SETTINGS = ("da", "uc")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class Config:
    """Parameters of one run, the same ones as in the tagged cell of `05_adapt.ipynb`.

    `check()` before use.
    """

    source: str = "photos"
    target: str = "stickers"
    # "da": unlabelled target pictures are seen in training | "uc": universal cross-domain, they are
    # not
    setting: str = "da"
    preset: str = "tiny"
    # Or "released" or "best", or one of them with single switches set: "paper, balance=rank_std"
    recipe: str = "paper"
    taxonomy: str = "six"  # or "eight": EmoSet's
    # Of the built-in world, "style_gap=0.5, spurious=1"; those not named stay at their defaults
    dials: str = ""
    seed: int = 0
    epochs: int | None = None  # None: the preset's
    precision: str | None = (
        # Of the networks: "no" (float32), "bf16" or "fp16"; None: bf16 on a GPU that has it, else
        # float32
        None
    )
    accumulation: int = (
        1  # pieces in which a process takes its share of a batch: more need less memory
    )
    # Compute the UNet's activations twice in place of keeping them: less memory, more time
    checkpointing: bool = False
    data_root: str | None = None  # folder of downloaded data sets
    models: str | None = (
        None  # folder of downloaded models, each below it as ORG/NAME; None: the hub's cache
    )
    out_dir: str | None = None  # None: runs/05_adapt-<target>
    device: str | None = None  # None: CUDA if there is one, else CPU

    def check(self) -> Config:
        """Return self, or raise KCDPError with a sentence naming the parameter that is wrong and
        what it may be (chapter 05).
        """
        _one_of("setting", self.setting, SETTINGS)
        _one_of("preset", self.preset, PRESETS)
        read_recipe(self.recipe)
        _one_of("taxonomy", self.taxonomy, TAXONOMIES)
        read_dials(self.dials)
        if self.data_root is not None and not resolve(self.data_root).is_dir():
            raise KCDPError(
                f"data_root={self.data_root!r} is not a folder; give the folder that holds the "
                "data sets, or leave it out."
            )
        if self.models is not None and not resolve(self.models).is_dir():
            raise KCDPError(
                f"models={self.models!r} is not a folder; give the folder that holds the "
                "downloaded models, each below it as ORG/NAME, or leave it out."
            )
        _domain("source", self.source, self.data_root)
        _domain("target", self.target, self.data_root)
        if not _is_count(self.seed, 0):
            raise KCDPError(f"seed={self.seed!r} must be a whole number, 0 or more.")
        if self.epochs is not None and not _is_count(self.epochs, 1):
            raise KCDPError(
                f"epochs={self.epochs!r} must be a whole number, 1 or more, or be left out."
            )
        if not _is_count(self.accumulation, 1):
            raise KCDPError(
                f"accumulation={self.accumulation!r} must be a whole number, 1 or more."
            )
        if self.device is not None:
            _device(self.device)
        if self.precision is not None:
            _one_of("precision", self.precision, PRECISIONS)
        if self.precision == "fp16" and not pick_device(self.device).startswith("cuda"):
            raise KCDPError(
                "precision='fp16' needs a CUDA GPU; leave it out, or choose no or bf16."
            )
        return self

    @property
    def sizes(self) -> Preset:
        """The preset itself, its models below `models` where that is given."""
        return in_folder(PRESETS[self.preset], self.models)

    @property
    def switches(self) -> Recipe:
        """The recipe itself; KCDPError if its text cannot be read."""
        return read_recipe(self.recipe)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in their order."""
        return TAXONOMIES[self.taxonomy]

    @property
    def run_epochs(self) -> int:
        """Epochs of this run: its own, or the preset's."""
        return self.epochs or self.sizes.epochs

    @property
    def run_dir(self) -> Path:
        """Where the run writes: `out_dir`, or a folder of runs/ named by the target and by what
        else is not at its default.
        """
        if self.out_dir is not None:
            return resolve(self.out_dir)
        names = [Path(self.target).absolute().name]
        names += (
            [f"from-{Path(self.source).absolute().name}"] if self.source != Config.source else []
        )
        names += [
            re.sub(r"[^\w.=]+", "-", getattr(self, name))
            for name in ("setting", "preset", "recipe", "taxonomy", "dials")
            if getattr(self, name) != getattr(Config, name)
        ]
        names += [f"seed{self.seed}"] if self.seed != Config.seed else []
        return resolve(f"runs/05_adapt-{'-'.join(names)}")

    def as_dict(self) -> dict:
        """Plain values, in the order of the parameters."""
        return asdict(self)


def pick_device(name: str | None = None) -> str:
    """The device a run uses, as torch writes it.

    The one asked for (not checked here), under `accelerate launch` the process's own, else "cuda"
    if present, else "cpu".
    """
    import torch

    if (
        "LOCAL_RANK" in os.environ
    ):  # this process is one of several; one of them may caption for hours while the others wait
        from accelerate import PartialState

        return str(
            PartialState(
                cpu=name == "cpu" or not torch.cuda.is_available(), timeout=timedelta(days=2)
            ).device
        )
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(name: str | None, device: str) -> str:
    """One of PRECISIONS: the one asked for, else "bf16" on a GPU that computes in it.

    On a CPU it gains little at the miniature's size.
    """
    import torch

    fast = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return name or ("bf16" if fast else "no")


def _is_count(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _one_of(parameter: str, value, known) -> None:
    if value not in tuple(known):
        raise KCDPError(f"{parameter}={value!r} is not known; choose one of {', '.join(known)}.")


def _domain(parameter: str, value, data_root: str | None) -> None:
    from kcdp_lib.datasets import (
        DOMAINS,
    )  # here, because the data sets need torch and a Config should not
    from kcdp_lib.datasets.layouts import REAL, find_root

    if not isinstance(value, str) or not value:
        raise KCDPError(
            f"{parameter}={value!r} must be one of {', '.join(DOMAINS)}, or a folder of pictures."
        )
    if value in REAL:
        find_root(value, data_root and resolve(data_root))
        return
    folders = [resolve(value), *([Path(resolve(data_root), value)] if data_root else [])]
    if value not in DOMAINS and not any(folder.is_dir() for folder in folders):
        raise KCDPError(
            f"{parameter}={value!r} is not known and no such folder exists; choose one of "
            f"{', '.join(DOMAINS)}, with data_root one of {', '.join(REAL)}, or give a folder of "
            "pictures."
        )


def _device(name: str) -> None:
    import torch

    try:
        usable = torch.device(name).type == "cpu" or (
            torch.device(name).type == "cuda" and torch.cuda.is_available()
        )
    except (RuntimeError, TypeError):
        usable = False
    if not usable:
        raise KCDPError(
            f"device={name!r} is not usable here; leave it out to have one picked, or choose "
            f"cpu{' or cuda' if torch.cuda.is_available() else ''}."
        )
