"""Settings of a run: its preset, its recipe and its parameters.

A preset holds only names and sizes of the models, a recipe only switches of the method: `tiny` and
`sd15`, `paper` and `released` run through the same code.
"""

from __future__ import annotations

import operator
import os
import re
import shlex
from collections.abc import Collection, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from datetime import date, timedelta
from difflib import SequenceMatcher
from functools import cache
from numbers import Real
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BeforeValidator, Field, PlainValidator, TypeAdapter, ValidationError

from kcdp_lib.errors import KCDPError
from kcdp_lib.paths import TINY, at_revision, folder_named, resolve, sha
from kcdp_lib.world import BENCHMARK
from kcdp_lib.world.causes import TAXONOMIES, read_dials

LONGEST_NAME = 120  # bytes of a run's folder, after "05_adapt-": file systems take 255


def of_stage(*stages: str, model: bool = False, default: Any = MISSING) -> Any:
    """Return a field that records the stages reading it (`keys.STAGES`), whose keys hold its value.

    model: the field names a model, whose content enters the key. Without a stage, the field changes
    no number.
    """
    return field(default=default, metadata={"stages": stages, "model": model})


class Backbone(NamedTuple):
    """What KADAP needs to know of a UNet beside its own configuration (chapter "Full size").

    Module names are those of diffusers' UNet2DConditionModel. Channels, heads and the width H of
    the context are read from the UNet, the scale of the latents from the VAE.
    """

    # modules whose outputs are the four maps, finest first
    maps: tuple[str, str, str, str]
    # blocks whose cross-attention is appended to the second and to the third map
    grids: tuple[tuple[str, ...], tuple[str, ...]]
    # folders of the pipeline; tokens of several text encoders are concatenated along H
    text_encoders: tuple[str, ...] = ("text_encoder",)
    # index of the hidden state that gives the tokens; None: the last one, normalised
    text_layer: int | None = None
    # whether the UNet also reads the pooled text of the last encoder, and the picture's size
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
    # with the others. It shares the grid of the third. The alternative was the first convolution,
    # whose features contain neither text nor context.
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


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Locations and sizes of the frozen models, and what depends on size (chapters 02 and 03).

    `sd15` takes F and the experts' width from the released code. LoRA's rank, batches, epochs and
    rates are ours, because we do not know the paper's.
    """

    name: str = of_stage()
    # a diffusers pipeline: a folder, or a hub id at a commit, "ORG/NAME@HASH" (`paths.at_revision`)
    diffusion: str = of_stage("latents", "tokens", "maps", "training", model=True)
    # open_clip: "local-dir:FOLDER" or an architecture's name
    vlm: str = of_stage("captions", model=True)
    # the weights if `vlm` is an architecture's name: a folder, or a hub id at a commit
    vlm_pretrained: str | None = of_stage("captions", model=True, default=None)
    # an InstructBLIP that captions (a folder, or a hub id at a commit); None: `vlm` captions
    writer: str | None = of_stage("captions", model=True, default=None)
    # parser of captions into triplets: "rules", or a spaCy model
    parser: str = of_stage("tokens", default="rules")
    # diffusers' variant of the stored weights ("fp16"); None: the plain files
    variant: str | None = of_stage("latents", "tokens", "maps", "training", default=None)
    # side in pixels of the square that the VAE encodes
    image_size: int = of_stage("captions", "latents")
    # pictures of each domain in one optimizer step
    batch_size: int = of_stage("training")
    # passes over the source's training split
    epochs: int = of_stage()
    # F; the visual feature v has 4 F numbers
    fpn_channels: int = of_stage("training")
    # hidden width of one expert
    expert_channels: int = of_stage("training", default=128)
    lora_rank: int = of_stage("training", default=8)
    # peak rate of everything that is trained
    learning_rate: float = of_stage("training")
    # where the UNet's maps are, and what conditions it
    backbone: Backbone = of_stage("tokens", "maps", "training", default=BACKBONES["sd"])


PRESETS = {
    "tiny": Preset(
        name="tiny",
        diffusion=str(TINY / "diffusion"),
        vlm=f"local-dir:{TINY / 'vlm'}",
        image_size=128,
        batch_size=32,
        epochs=4,
        fpn_channels=64,
        learning_rate=5e-4,
    ),
    "sd15": Preset(
        name="sd15",
        diffusion="stable-diffusion-v1-5/stable-diffusion-v1-5@451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        vlm="coca_ViT-L-14",
        vlm_pretrained="laion/mscoco_finetuned_CoCa-ViT-L-14-laion2B-s13B-b90k@f895105fb18cf5ea3ba7a1172966e4cc0ad8d743",
        variant="fp16",
        image_size=512,
        batch_size=8,
        epochs=3,
        fpn_channels=256,
        learning_rate=1e-4,
    ),
}
# captions as in the paper: free English, which the rules parse badly (`benchmarks/triplets.py`)
PRESETS["sd15-instructblip"] = replace(
    PRESETS["sd15"],
    name="sd15-instructblip",
    writer="Salesforce/instructblip-flan-t5-xl@bf9bd58cb3bb06e88c03b80f9cc346b90094bc6d",
    parser="en_core_web_sm",
)
# other backbones, each with pictures of the size that it was trained on
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
# options of `hf download` for the files that the loaders read: most repositories hold the same
# weights several times over, Stable Diffusion's more than forty gigabytes
FILES = {
    "diffusion": (
        '--include "*/config.json" --include "*/*.fp16.safetensors" --include "tokenizer*/*" '
        '--include "scheduler/*" --exclude "safety_checker/*" --exclude "vae_1_0/*"'
    ),
    "vlm_pretrained": '--include "*.safetensors"',
    "writer": '--exclude "*.bin"',
}


def of_hub(preset: Preset) -> dict[str, tuple[str, str]]:
    """Return {field of the preset: (hub id, commit)} of the models that come from the hub."""
    named = {part: at_revision(getattr(preset, part) or "") for part in FILES}
    return {part: (hub, commit) for part, (hub, commit) in named.items() if commit}


def in_folder(preset: Preset, models: str | Path | None) -> Preset:
    """Return the preset with its hub models replaced by folders below `models`, named by hub id.

    `hf download ORG/NAME --local-dir MODELS/ORG/NAME` makes them. None: the preset itself.
    """
    if models is None:
        return preset
    folders: dict[str, Any] = {
        part: str(resolve(models) / hub) for part, (hub, _) in of_hub(preset).items()
    }
    return replace(preset, **folders)


def how_to_get(name: str) -> str:
    """Return how to get the missing weights `name`, a folder or a hub id at its commit.

    This is half a sentence, with the command.
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
    if not commit:  # a folder from `in_folder` ends in the hub id
        hub, where = "/".join(folder.parts[-2:]), f" --local-dir {shlex.quote(str(folder))}"
    known_commit, files = known.get(hub, (None, ""))
    if commit := commit or known_commit:
        return f"download it by `hf download {hub} --revision {commit}{files}{where}`"
    return (
        "give a folder that is complete, with weights in safetensors, or a hub id at its commit, "
        "ORG/NAME@HASH"
    )


def switch_values() -> dict[str, tuple]:
    """Return every switch of a recipe with the values that its type allows."""
    types = get_type_hints(Recipe)
    return {name: _values(kind) for name, kind in types.items() if name != "name"}


def _values(kind: Any) -> tuple:
    """Return the values of a type that has few: a bool, a Literal, or one of these with None."""
    if kind is bool:
        return True, False
    if kind is NoneType:
        return (None,)
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(value for part in get_args(kind) for value in _values(part))


@dataclass(frozen=True)
class Recipe:
    """One switch for each difference between the paper's figure and the released code.

    "figure" marks what the paper's figure or text says, "ours" what we chose where it is silent.
    The chapter "Paper, released code and this book" measures each. The defaults are the recipe
    "paper".
    """

    # as the user wrote it (`read_recipe`)
    name: str = of_stage()
    # [-1, 1], the VAE's own range (ours) | ImageNet's mean and deviation, applied twice
    image_range: Literal["symmetric", "imagenet_twice"] = of_stage("latents", default="symmetric")
    # multiply latents by the VAE's scaling factor (ours)
    latent_scaling: bool = of_stage("latents", default=True)
    # LoRA on attn2, the UNet frozen (figure) | LoRA on all attention, feed-forward layers and the
    # residual blocks' convolutions | the whole UNet | nothing of it: maps computed once
    trained: Literal["lora", "lora_all", "unet", "heads"] = of_stage("training", default="lora")
    # whether the cross-attention maps carry gradient (ours)
    attention_gradient: bool = of_stage("training", default=True)
    # whether the predictor reads k as well as v (figure)
    knowledge_in_moe: bool = of_stage("training", default=True)
    # whether the two chosen gate values sum to one (ours)
    gate_renormalised: bool = of_stage("training", default=True)
    # equal load of the experts (ours) | standard deviation of rank sums
    balance: Literal["load", "rank_std"] = of_stage("training", default="load")
    # how often the source cross-entropy enters the sum (figure: once)
    source_loss_count: Literal[1, 2] = of_stage("training", default=1)
    # with spaces, mask-aware mean, padding hidden everywhere (ours) | without spaces, summed,
    # padding treated as text
    triplet_text: Literal["spaced", "glued"] = of_stage("tokens", default="spaced")
    # whether padding is hidden from CLIEA's attention and mean (ours)
    cliea_masked: bool = of_stage("training", default=True)
    # CLIEA starts at random | at the text encoder's zero-shot prediction (ours)
    cliea_start: Literal["random", "text_encoder"] = of_stage("training", default="text_encoder")
    # whether v and the experts' part of k are standardised, by each domain's averages (ours)
    domain_norm: bool = of_stage("training", default=True)
    # warm-up, then confident and class-balanced (ours) | argmax from the first step |
    # curriculum with estimated class shares (`PseudoLabeller`)
    pseudo_labels: Literal["curriculum", "raw", "priors"] = of_stage(
        "training", default="curriculum"
    )
    # warm-up to the preset's rate, then cosine by step (ours) | 1e-5 throughout
    learning_rate: Literal["cosine", "constant"] = of_stage("training", default="cosine")
    # shuffle all pictures (ours) | stored order, first half only
    shuffled: bool = of_stage("training", default=True)

    # Beyond the paper, only in "best" (chapter "A fair comparison"):
    # whether v also holds the VLM's embeddings of picture and caption
    embeddings: bool = of_stage("training", default=False)
    # what labels the target: CLIEA's similarities (figure) | all of `KCDP.answer` | the experts |
    # the VLM, zero-shot
    labelled_by: Literal["similarities", "answer", "experts", "vlm"] = of_stage(
        "training", default="similarities"
    )
    # if the source's pictures have class shares, train on: the class alone | the shares
    labels: Literal["hard", "soft"] = of_stage("training", default="hard")

    # Ablations, part of no recipe (the same chapter measures them):
    # caption and triplets (figure) | one of them | nothing | the knowledge of another picture
    knowledge: Literal["both", "caption", "triplets", "none", "another"] = of_stage(
        "tokens", default="both"
    )
    # whether a CoCa's caption begins with words for feelings: the authors ask their VLM for the
    # emotional meaning
    feelings: bool = of_stage("tokens", default=True)
    # the pre-trained UNet (figure) | without its attention maps | with random weights | no maps
    eye: Literal["diffusion", "no_attention", "untrained", "blind"] = of_stage(
        "maps", "training", default="diffusion"
    )
    # timestep t of the UNet's pass (1: released); at later ones the latents are noised
    timestep: Literal[1, 50, 250, 500] = of_stage("maps", "training", default=1)
    # None: the preset's
    lora_rank: Literal[1, 2, 32] | None = of_stage("training", default=None)
    # what L_ccl compares a picture with: its knowledge under each prompt (figure) | the prompts
    # alone, from a random start | nothing, without L_ccl
    alignment: Literal["counterfactual", "prompts", "none"] = of_stage(
        "training", default="counterfactual"
    )

    def __post_init__(self) -> None:
        """Raise KCDPError for a value that a switch does not have: none may fall into an `else`."""
        for name, values in switch_values().items():
            if getattr(self, name) not in values:
                raise KCDPError(_not_known(name, getattr(self, name), values))

    @property
    def looks_once(self) -> bool:
        """Whether nothing before the four maps is trained, so that they are computed only once."""
        return self.trained == "heads" and self.eye != "blind"


RECIPES = {
    "paper": Recipe(name="paper"),
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
        cliea_start="random",
        domain_norm=False,
        pseudo_labels="raw",
        learning_rate="constant",
        shuffled=False,
    ),
    # chosen by `benchmarks/grid.py develop`
    "best": Recipe(
        name="best",
        embeddings=True,
        labels="soft",  # not chosen by it: its pictures have no shares, so this changes nothing
    ),
}


def _set_by(recipe: Recipe) -> tuple[str, ...]:
    """Return the switches in which a recipe differs from the paper's."""
    return tuple(name for name in switch_values() if getattr(recipe, name) != getattr(Recipe, name))


SWITCHES, BEYOND = _set_by(RECIPES["released"]), _set_by(RECIPES["best"])


def read_recipe(text: str) -> Recipe:
    """Return a recipe by name, with single switches changed if given.

    Such as "paper", or "paper, balance=rank_std, shuffled=False". Raises KCDPError that names what
    is not known and what is allowed.
    """
    name, *changes = (part.strip() for part in str(text).split(","))
    _one_of("recipe", name, RECIPES)
    switches, changed = switch_values(), {}
    for change in changes:
        switch, value = (part.strip() for part in change.partition("=")[::2])
        _one_of("switch of the recipe", switch, switches)
        if switch in changed:
            raise KCDPError(f"recipe={text!r} sets {switch} twice; write it once.")
        values = {str(known): known for known in switches[switch]}
        _one_of(switch, value, values)
        changed[switch] = values[value]
    return replace(RECIPES[name], name=str(text), **changed)


# ---------------------------------------------------------------- the parameters of one run


def _whole(value: Any) -> Any:
    """Convert a whole number of any kind (NumPy's, 3.0) to int; return anything else as it is."""
    if isinstance(value, bool | np.bool_ | str):
        return value
    try:
        return operator.index(value)
    except (TypeError, ValueError):
        return int(float(value)) if isinstance(value, Real) and float(value).is_integer() else value


def _place(value: Any) -> str:
    """Return a path as text; a bare `Path` becomes "./name", because it never names a domain."""
    if isinstance(value, os.PathLike) and isinstance(value := os.fspath(value), str):
        value = os.path.join(os.curdir, value) if os.path.basename(value) == value else value
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError
    return str(value)


# Types of the parameters, each with its description in error messages.
Whole = Annotated[int, BeforeValidator(_whole), Field(strict=True)]
Seed = Annotated[
    Whole, Field(ge=0, le=2**32 - 1), "a whole number, 0 or more and at most 4294967295"
]
Count = Annotated[Whole, Field(ge=1, le=1_000_000), "a whole number, 1 or more and at most 1000000"]
Domain = Annotated[
    str,
    PlainValidator(_place),
    f"one of {', '.join(BENCHMARK)}, noto, real art such as art-noto, or a folder of pictures",
]
Folder = Annotated[str, PlainValidator(_place), "a folder"]
Text = Annotated[str, Field(strict=True), "a text"]
Switch = Annotated[
    bool, BeforeValidator(lambda value: value.item() if isinstance(value, np.bool_) else value),
    Field(strict=True),
]  # fmt: skip
# YAML reads the word no as False
Precision = Annotated[
    Literal["no", "bf16", "fp16"], BeforeValidator(lambda value: "no" if value is False else value)
]
Device = Annotated[str, BeforeValidator(str), "a device"]  # torch.device, too


@dataclass
class Config:
    """Parameters of one run, the same ones as in the tagged cell of `05_adapt.ipynb`.

    A value of a wrong kind raises a KCDPError of one sentence at once. Call `check()` before use:
    it checks that names, folders and the device exist.
    """

    # a domain's name, or a folder of pictures; pictures enter a key by their content
    source: Domain = of_stage(default="photos")
    target: Domain = of_stage(default="stickers")
    # "da": training sees unlabelled target pictures | "uc": universal cross-domain, source only
    setting: Literal["da", "uc"] = of_stage(default="da")
    preset: Text = of_stage(default="tiny")
    # "paper", "released" or "best", also with switches set: "paper, balance=rank_std"
    recipe: Text = of_stage(default="paper")
    # "six": the paper's classes | "eight": EmoSet's
    taxonomy: Literal["six", "eight"] = of_stage("training", default="six")
    # of the built-in world, "style_gap=0.5, spurious=1"; the others keep their defaults
    dials: Text = of_stage(default="")
    seed: Seed = of_stage("training", default=0)
    # None: the preset's
    epochs: Count | None = of_stage("training", default=None)
    # of the networks, "no" is float32; None: bf16 on a GPU that supports it, else float32
    precision: Precision | None = of_stage("training", default=None)
    # pieces into which a process splits its share of a batch: more need less memory
    accumulation: Count = of_stage("training", default=1)
    # both domains in one pass of the UNet: faster on a GPU that a batch does not fill, more memory
    one_pass: Switch = of_stage(default=False)
    # recompute the UNet's activations instead of keeping them: less memory, more time
    checkpointing: Switch = of_stage(default=False)
    # folder of downloaded data sets
    data_root: Folder | None = of_stage(default=None)
    # folder of downloaded models, each below it as ORG/NAME; None: the hub's cache
    models: Folder | None = of_stage(default=None)
    # None: runs/05_adapt-<target>
    out_dir: Folder | None = of_stage(default=None)
    # None: CUDA if there is one, else CPU
    device: Device | None = of_stage(default=None)

    def __post_init__(self):
        """Convert every value to its plain form: a str, int, bool or None.

        Raises KCDPError for a value of a wrong kind.
        """
        for name, (kind, adapter) in _kinds().items():
            value = getattr(self, name)
            try:
                setattr(self, name, adapter.validate_python(value))
            except ValidationError:
                raise KCDPError(_refusal(name, value, kind)) from None

    def check(self) -> Config:
        """Return self, or raise a KCDPError that names the parameter and what it may be.

        Checks that names are known, folders exist and the device can be used (chapter 05).
        """
        self.__post_init__()  # a value may have been set since creation
        _one_of("preset", self.preset, PRESETS)
        read_recipe(self.recipe)
        read_dials(self.dials)
        _folder("data_root", self.data_root, "data sets")
        _folder("models", self.models, "downloaded models, each below it as ORG/NAME")
        _domain("source", self.source, self.data_root)
        _domain("target", self.target, self.data_root)
        if self.device is not None:
            check_device(self.device)
        if self.precision == "fp16" and not pick_device(self.device).startswith("cuda"):
            raise KCDPError(
                "precision='fp16' needs a CUDA GPU; leave it out, or choose no or bf16."
            )
        return self

    @property
    def sizes(self) -> Preset:
        """The preset itself, with its models below `models` if that is given."""
        return in_folder(PRESETS[self.preset], self.models)

    @property
    def switches(self) -> Recipe:
        """The recipe itself; raises KCDPError if its text cannot be read."""
        return read_recipe(self.recipe)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in order."""
        return TAXONOMIES[self.taxonomy]

    @property
    def run_epochs(self) -> int:
        """Epochs of this run: its own, or the preset's."""
        return self.epochs or self.sizes.epochs

    @property
    def names(self) -> tuple[str, str]:
        """Source and target without the folders they lie in."""
        source, target = (Path(os.path.abspath(place)).name for place in (self.source, self.target))
        return source or "root", target or "root"

    @property
    def run_dir(self) -> Path:
        """Folder that the run writes to.

        `out_dir`, or a folder of runs/ named by the target and by the other parameters below that
        are not at their defaults. A name too long for a file system is cut, and ends in its hash.
        """
        if self.out_dir is not None:
            return resolve(self.out_dir)
        source, target = self.names
        parts = [target] + [f"from-{source}"] * (self.source != Config.source)
        parts += [
            re.sub(r"[^\w.=]+", "-", getattr(self, name))
            for name in ("setting", "preset", "recipe", "taxonomy", "dials")
            if getattr(self, name) != getattr(Config, name)
        ]
        parts += [f"seed{self.seed}"] * (self.seed != Config.seed)
        return resolve(f"runs/05_adapt-{_cut('-'.join(parts))}")

    def as_dict(self) -> dict:
        """Return plain values, in the order of the parameters."""
        return asdict(self)


def _cut(name: str) -> str:
    """Cut a name to `LONGEST_NAME` bytes; what is longer ends in a hash of the whole."""
    encoded = os.fsencode(name)
    if len(encoded) <= LONGEST_NAME:
        return name
    return f"{encoded[: LONGEST_NAME - 9].decode(errors='ignore')}-{sha(encoded)[:8]}"


def with_parameters(config: Config, parameters: Mapping[str, Any], where: str = "") -> Config:
    """Return the config with some parameters set; raises KCDPError for an unknown name.

    where: half a sentence on where the names were found, such as " in run.yaml".
    """
    known = [parameter.name for parameter in fields(Config)]
    for name in parameters:
        if name not in known:
            raise KCDPError(
                f"{name!r}{where} is no parameter{_meant(name, known)}; choose among "
                f"{', '.join(known)}."
            )
    return replace(config, **parameters)


def pick_device(name: str | None = None) -> str:
    """Return the device that a run uses, as torch writes it.

    Under `accelerate launch` this is the process's own, else the given one (not checked here), else
    "cuda" if present, else "cpu".
    """
    import torch

    if "LOCAL_RANK" in os.environ:  # this process is one of several
        from accelerate import PartialState

        on_cpu = name == "cpu" or not torch.cuda.is_available()
        # one process may caption for hours while the others wait
        return str(PartialState(cpu=on_cpu, timeout=timedelta(days=2)).device)
    return name or ("cuda" if torch.cuda.is_available() else "cpu")


def pick_precision(name: str | None, device: str) -> str:
    """Return the given precision ("no", "bf16", "fp16"), else "bf16" on a GPU that supports it.

    Otherwise "no": on a CPU, bf16 gains little at the miniature's size.
    """
    import torch

    fast = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(
        including_emulation=False
    )
    return name or ("bf16" if fast else "no")


@cache
def _kinds() -> dict[str, tuple[Any, TypeAdapter]]:
    """Return each parameter's annotation and the adapter that validates its values, by name."""
    kinds = get_type_hints(Config, include_extras=True)
    return {name: (kind, TypeAdapter(kind)) for name, kind in kinds.items()}


def takes_text(name: str) -> bool:
    """Return whether a parameter is a text of any kind, not a number or switch."""
    return name in _kinds() and _parts(_kinds()[name][0])[0] not in (int, bool)


def _parts(kind: Any) -> tuple:
    """Return the parts of an annotation, apart from a None that it allows."""
    optional = NoneType in get_args(kind)
    return get_args(get_args(kind)[0] if optional else kind)


def _refusal(name: str, value: Any, kind: Any) -> str:
    """Return a sentence about a value of a wrong kind."""
    if known := [one for one in _values(kind) if one is not None]:
        return _not_known(name, value, known)
    base, *_, expected = _parts(kind)
    hint = ""
    if base is str and isinstance(value, Real | date):
        hint = ", in quotation marks (papermill: -r)"
    elif base is int and isinstance(value, str):
        hint = ", without quotation marks"
    left_out = ", or be left out" * (NoneType in get_args(kind))
    return f"{name}={_quoted(value)} must be {expected}{hint}{left_out}."


def _quoted(value: Any) -> str:
    """Return a value as Python writes it, short enough to be quoted in a sentence."""
    written = repr(value).replace("\n", " ")
    return written if len(written) <= 100 else f"{written[:96]} ..."


def _one_of(parameter: str, value: Any, known: Collection) -> None:
    """Raise KCDPError if a word is not among the known ones."""
    if not isinstance(value, str) or value not in tuple(known):
        raise KCDPError(_not_known(parameter, value, known))


def _not_known(parameter: str, value: Any, known: Collection) -> str:
    """Return a sentence about an unknown word, with the one that was probably meant."""
    choice, meant = ", ".join(map(str, known)), _meant(value, known)
    return f"{parameter}={_quoted(value)} is not known{meant}; choose one of {choice}."


def _meant(value: Any, known: Collection) -> str:
    """Return the part of a sentence that names the word which was probably meant, or ""."""
    near = nearest(value, known)
    return f", perhaps {near!r} was meant" if near else ""


ALIKE = 0.6  # `SequenceMatcher` ratio from which one word may stand for another


def nearest(value: Any, known: Collection) -> str | None:
    """Return the known word that was probably meant, the first of equally close ones, or None."""
    words = {str(word).casefold(): str(word) for word in known}
    given = str(value).strip().casefold()
    likeness = {word: SequenceMatcher(None, word, given).ratio() for word in words}
    best = max(likeness, key=likeness.__getitem__, default=None)
    return words[best] if best and likeness[best] >= ALIKE else None


def _folder(parameter: str, value: str | None, holds: str) -> None:
    """Raise KCDPError if a folder is given that does not exist."""
    if value is not None and not os.path.isdir(resolve(value)):
        raise KCDPError(
            f"{parameter}={_quoted(value)} is not a folder; give the folder that holds the "
            f"{holds}, or leave it out."
        )


def _domain(parameter: str, value: str, data_root: str | None) -> None:
    """Raise KCDPError if a name is neither a domain nor an existing folder."""
    # imported here because the data sets need torch, and a Config should not
    from kcdp_lib.datasets import DOMAINS
    from kcdp_lib.datasets.layouts import REAL, find_root

    if value in REAL:
        find_root(value, resolve(data_root) if data_root else None)
        return
    if value not in DOMAINS and not os.path.isdir(folder_named(value, data_root)):
        meant = _meant(value, (*DOMAINS, *REAL))
        raise KCDPError(
            f"{parameter}={_quoted(value)} is neither a known name nor a folder{meant}; choose "
            f"one of {', '.join(DOMAINS)}, with data_root one of {', '.join(REAL)}, or give a "
            "folder of pictures."
        )


def check_device(name: str) -> None:
    """Raise KCDPError if a device, as torch writes it, cannot be used on this machine."""
    import torch

    try:
        device = torch.device(name)
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        usable = device.type == "cpu" or device.type == "cuda" and (device.index or 0) < count
    except (RuntimeError, TypeError):
        usable, count = False, 0
    if not usable:
        raise KCDPError(
            f"device={_quoted(name)} is not usable here; leave it out to have one picked, or "
            f"choose cpu{' or cuda' if count else ''}."
        )
