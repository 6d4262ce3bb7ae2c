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
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import TINY, at_revision, resolve
from kcdp_lib.world.causes import TAXONOMIES, read_dials


def of_stage(*stages: str, model: bool = False, default: Any = MISSING) -> Any:
    """A field and the stages that read it (`keys.STAGES`): their results are kept under its value.

    model: the field names a model, which enters a key by its content. No stage: the field changes
    no number.
    """
    return field(default=default, metadata={"stages": stages, "model": model})


class Backbone(NamedTuple):
    """What KADAP has to know of a UNet beside its own configuration (chapter "Full size").

    Module names are those of diffusers' UNet2DConditionModel. Channels, heads and the width H of
    the context are read from the UNet, the scale of the latents from the VAE.
    """

    # the modules behind which the four maps are taken, finest first
    maps: tuple[str, str, str, str]
    # the blocks whose cross-attention is appended to the second and to the third map
    grids: tuple[tuple[str, ...], tuple[str, ...]]
    # folders of the pipeline; the tokens of several text encoders are put side by side
    text_encoders: tuple[str, ...] = ("text_encoder",)
    # which of the text encoder's hidden states are the tokens; None: the last, normalised
    text_layer: int | None = None
    # is the UNet also told the whole text, as the last encoder pools it, and the picture's size
    pooled_text: bool = False


BACKBONES = {
    # Stable Diffusion 1 and 2 and the miniature: four levels, the coarsest without attention
    "sd": Backbone(
        maps=(
            "up_blocks.3.attentions.2",
            "up_blocks.2.attentions.1",
            "up_blocks.1.attentions.1",
            "up_blocks.0.resnets.1",
        ),
        grids=(("down_blocks.1.", "up_blocks.2."), ("down_blocks.2.", "up_blocks.1.")),
    ),
    # Stable Diffusion XL: three levels, the finest without attention. The fourth map is the middle
    # block's, so that v keeps its 4 F numbers and the pyramid starts from the deepest features, as
    # with the others. It shares the grid of the third; the first convolution's features, the other
    # choice, have met neither text nor context.
    "sdxl": Backbone(
        maps=(
            "up_blocks.2.resnets.2",
            "up_blocks.1.attentions.1",
            "up_blocks.0.attentions.1",
            "mid_block.resnets.1",
        ),
        grids=(("down_blocks.1.", "up_blocks.1."), ("down_blocks.2.", "up_blocks.0.")),
        text_encoders=("text_encoder", "text_encoder_2"),
        text_layer=-2,
        pooled_text=True,
    ),
}


@dataclass(frozen=True)
class Preset:
    """Where the frozen models lie and how large everything is (chapters 02 and 03).

    `sd15` takes F and the experts' width from the released code. LoRA's rank, batches, epochs and
    rates are ours: we do not know the paper's.
    """

    name: str = of_stage()
    # a diffusers pipeline: a folder, or a hub id at a commit, "ORG/NAME@HASH" (`paths.at_revision`)
    diffusion: str = of_stage("latents", "tokens", "maps", "training", model=True)
    # open_clip: "local-dir:FOLDER" or an architecture's name
    vlm: str = of_stage("captions", model=True)
    # the weights where `vlm` is an architecture's name: a folder, or a hub id at a commit
    vlm_pretrained: str | None = of_stage("captions", model=True)
    # an InstructBLIP that writes the captions (a folder, or a hub id at a commit); None: `vlm` does
    writer: str | None = of_stage("captions", model=True)
    # of captions into triplets: "rules", or a spaCy model
    parser: str = of_stage("tokens")
    # diffusers' variant of the stored weights ("fp16"); None: the plain files
    variant: str | None = of_stage("latents", "tokens", "maps", "training")
    # pixels, side of the square that the VAE sees
    image_size: int = of_stage("captions", "latents")
    # pictures of each domain in one optimizer step
    batch_size: int = of_stage("training")
    # passes over the source's training split
    epochs: int = of_stage()
    # F; the visual feature v has 4 F numbers
    fpn_channels: int = of_stage("training")
    # hidden width of one expert
    expert_channels: int = of_stage("training")
    lora_rank: int = of_stage("training")
    # peak, for everything that is trained
    learning_rate: float = of_stage("training")
    # where in the UNet the maps are, and what it is told
    backbone: Backbone = of_stage("tokens", "maps", "training", default=BACKBONES["sd"])


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
# other backbones; the pictures have the size that each was trained on
PRESETS["sd21"] = replace(
    PRESETS["sd15"],
    name="sd21",
    diffusion="stabilityai/stable-diffusion-2-1@5cae40e6a2745ae2b01ad92ae5043f95f23644d6",
    image_size=768,
    batch_size=4,
)
PRESETS["sdxl"] = replace(
    PRESETS["sd15"],
    name="sdxl",
    diffusion="stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b",
    image_size=1024,
    batch_size=4,
    backbone=BACKBONES["sdxl"],
)
# of a repository, what the loaders read, as options of `hf download`: most hold the same weights
# several times over, Stable Diffusion's more than forty gigabytes
FILES = {
    "diffusion": (
        '--include "*/config.json" --include "*/*.fp16.safetensors" --include "tokenizer*/*" '
        '--include "scheduler/*" --exclude "safety_checker/*" --exclude "vae_1_0/*"'
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


def switch_values() -> dict[str, tuple]:
    """Every switch of a recipe, and the values that its type allows."""
    types = get_type_hints(Recipe)
    names = [switch.name for switch in fields(Recipe) if switch.name != "name"]
    return {name: _values(types[name]) for name in names}


def _values(kind: Any) -> tuple:
    """The values of a type that has few: a bool, a Literal, or one of these with None."""
    if kind is bool:
        return True, False
    if get_origin(kind) is Literal:
        return get_args(kind)
    values: tuple = ()
    for part in get_args(kind):
        values += (None,) if part is type(None) else _values(part)
    return values


@dataclass(frozen=True)
class Recipe:
    """One switch for each difference between the paper's figure and the released code.

    "figure" marks what the paper's figure or text says, "ours" what we chose where it is silent.
    The chapter "Paper, released code, this book" measures each.
    """

    # as the user wrote it, see `read_recipe`
    name: str = of_stage()
    # [-1, 1], the VAE's own (ours) | ImageNet's mean and deviation, applied twice
    image_range: Literal["symmetric", "imagenet_twice"] = of_stage("latents")
    # multiply latents by the VAE's scaling factor (ours)
    latent_scaling: bool = of_stage("latents")
    # adapters on attn2, the UNet frozen (figure) | the whole UNet | neither: maps computed once
    trained: Literal["lora", "unet", "heads"] = of_stage("training")
    # do the cross-attention maps carry gradient (ours)
    attention_gradient: bool = of_stage("training")
    # does the predictor see k as well as v (figure)
    knowledge_in_moe: bool = of_stage("training")
    # the two chosen gate values sum to one (ours)
    gate_renormalised: bool = of_stage("training")
    # experts get equal shares (ours) | standard deviation of rank sums
    balance: Literal["load", "rank_std"] = of_stage("training")
    # how often the source cross-entropy enters the sum (figure: once)
    source_loss_count: Literal[1, 2] = of_stage("training")
    # alone, mask-aware mean, padding hidden everywhere (ours) | without spaces, summed, padding
    # is text like any other
    triplet_text: Literal["spaced", "glued"] = of_stage("tokens")
    # is padding hidden from CLIEA's attention and mean (ours)
    cliea_masked: bool = of_stage("training")
    # warm-up, then confident and class-balanced (ours) | argmax from the first step |
    # curriculum with estimated class shares, see `PseudoLabeller`
    pseudo_labels: Literal["curriculum", "raw", "priors"] = of_stage("training")
    # warm-up to the preset's rate, then cosine by step (ours) | 1e-5 throughout
    learning_rate: Literal["cosine", "constant"] = of_stage("training")
    # shuffle all pictures (ours) | stored order, first half only
    shuffled: bool = of_stage("training")

    # Beyond the paper, in "best" alone (the chapter "A fair comparison"):
    # are the VLM's embeddings of picture and caption part of what is seen, beside v
    embeddings: bool = of_stage("training", default=False)
    # is what experts and CLIEA read standardised, each domain by its own averages
    domain_norm: bool = of_stage("training", default=False)
    # who labels the target: CLIEA's similarities (figure) | all of `KCDP.answer` | the experts |
    # the VLM asked directly
    labelled_by: Literal["similarities", "answer", "experts", "vlm"] = of_stage(
        "training", default="similarities"
    )

    # What can be taken away or exchanged, and is nobody's recipe (the same chapter measures it):
    # caption and triplets (figure) | one of them | nothing | the knowledge of another picture
    knowledge: Literal["both", "caption", "triplets", "none", "another"] = of_stage(
        "tokens", default="both"
    )
    # the pre-trained UNet (figure) | without its attention maps | with random weights | no map
    eye: Literal["diffusion", "no_attention", "untrained", "blind"] = of_stage(
        "maps", "training", default="diffusion"
    )
    # t at which the UNet looks (1: released); at later ones the latents get their noise
    timestep: Literal[1, 50, 250, 500] = of_stage("maps", "training", default=1)
    # None: the preset's
    lora_rank: Literal[1, 2, 32] | None = of_stage("training", default=None)
    # what L_ccl compares a picture with: its knowledge under each prompt (figure) | the prompts
    # alone | nothing: there is no L_ccl
    alignment: Literal["counterfactual", "prompts", "none"] = of_stage(
        "training", default="counterfactual"
    )

    def __post_init__(self) -> None:
        """KCDPError for a value that a switch does not have: none may fall into an `else`."""
        for name, values in switch_values().items():
            if getattr(self, name) not in values:
                raise KCDPError(
                    f"{name}={getattr(self, name)!r} is not known; choose one of "
                    f"{', '.join(map(str, values))}."
                )

    @property
    def looks_once(self) -> bool:
        """Is nothing trained before the four maps, so that they are computed once a picture?"""
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
# chosen by `benchmarks/grid.py develop`
RECIPES["best"] = replace(
    RECIPES["paper"], name="best", embeddings=True, domain_norm=True, labelled_by="answer"
)


def _differing(one: str, other: str) -> tuple[str, ...]:
    """The switches in which two recipes differ."""
    return tuple(
        name
        for name in switch_values()
        if getattr(RECIPES[one], name) != getattr(RECIPES[other], name)
    )


SWITCHES = _differing("paper", "released")
BEYOND = _differing("paper", "best")


def read_recipe(text: str) -> Recipe:
    """A recipe by name, with single switches set otherwise where wanted.

    "paper", or "paper, balance=rank_std, shuffled=False".

    Raises KCDPError naming what is not known and what it may be.
    """
    name, *changes = (part.strip() for part in str(text).split(","))
    _one_of("recipe", name, RECIPES)
    switches, changed = switch_values(), {}
    for change in changes:
        switch, value = (part.strip() for part in change.partition("=")[::2])
        _one_of("switch of the recipe", switch, switches)
        values = {str(known): known for known in switches[switch]}
        _one_of(switch, value, values)
        changed[switch] = values[value]
    return replace(RECIPES[name], name=str(text), **changed)


SETTINGS = ("da", "uc")
PRECISIONS = ("no", "bf16", "fp16")


@dataclass
class Config:
    """Parameters of one run, the same ones as in the tagged cell of `05_adapt.ipynb`.

    `check()` before use.
    """

    # a domain by name, or a folder of pictures; pictures enter a key by their content
    source: str = of_stage(default="photos")
    target: str = of_stage(default="stickers")
    # "da": unlabelled target pictures are seen in training | "uc": universal cross-domain, without
    setting: Literal["da", "uc"] = of_stage(default="da")
    preset: str = of_stage(default="tiny")
    # or "released" or "best", or one of them with switches set: "paper, balance=rank_std"
    recipe: str = of_stage(default="paper")
    # "eight": EmoSet's
    taxonomy: Literal["six", "eight"] = of_stage("training", default="six")
    # of the built-in world, "style_gap=0.5, spurious=1"; those not named stay at their defaults
    dials: str = of_stage(default="")
    seed: int = of_stage("training", default=0)
    # None: the preset's
    epochs: int | None = of_stage("training", default=None)
    # of the networks, "no" is float32; None: bf16 on a GPU that has it, else float32
    precision: Literal["no", "bf16", "fp16"] | None = of_stage("training", default=None)
    # pieces in which a process takes its share of a batch: more need less memory
    accumulation: int = of_stage("training", default=1)
    # compute the UNet's activations twice in place of keeping them: less memory, more time
    checkpointing: bool = of_stage(default=False)
    # folder of downloaded data sets
    data_root: str | None = of_stage(default=None)
    # folder of downloaded models, each below it as ORG/NAME; None: the hub's cache
    models: str | None = of_stage(default=None)
    # None: runs/05_adapt-<target>
    out_dir: str | None = of_stage(default=None)
    # None: CUDA if there is one, else CPU
    device: str | None = of_stage(default=None)

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
