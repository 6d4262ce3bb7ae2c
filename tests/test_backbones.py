"""Other UNets: Stable Diffusion 2.1 and XL, as small models and at their true sizes.

Their configurations are the published ones; the small ones keep the blocks with fewer channels.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from blank import blank_preset, new_folder
from diffusers import (
    DDPMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.models.attention_processor import Attention, AttnProcessor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from kcdp_lib import KCDPError, config, paths, precompute
from kcdp_lib.adapt import training
from kcdp_lib.adapt.model import KCDP, evaluate, gather
from kcdp_lib.config import PRESETS, RECIPES, Config, Preset
from kcdp_lib.datasets import Pictures
from kcdp_lib.knowledge import encode_texts, load_text_encoder, pooled_captions
from kcdp_lib.perception import KADAP, Recorder, StoringProcessor, load_kadap
from kcdp_lib.pretrain import stack

pytestmark = pytest.mark.usefixtures("one_thread")

# Where unet/config.json differs from diffusers' defaults.
SD21 = dict(
    sample_size=96,
    block_out_channels=(320, 640, 1280, 1280),
    attention_head_dim=(5, 10, 20, 20),
    cross_attention_dim=1024,
    use_linear_projection=True,
    upcast_attention=True,
)
SDXL = dict(
    sample_size=128,
    down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    block_out_channels=(320, 640, 1280),
    transformer_layers_per_block=(1, 2, 10),
    attention_head_dim=(5, 10, 20),
    cross_attention_dim=2048,
    use_linear_projection=True,
    addition_embed_type="text_time",
    addition_time_embed_dim=256,
    projection_class_embeddings_input_dim=2816,
)
TRUE = {"sd21": SD21, "sdxl": SDXL}
FULL_SIZE = {name: PRESETS[name] for name in TRUE}
SECOND_WIDTH, POOLED = 48, 40
SMALL = {
    "sd21": SD21
    | dict(
        block_out_channels=(16, 32, 32, 32),
        attention_head_dim=(1, 2, 2, 2),
        cross_attention_dim=stack.HIDDEN,
    ),
    "sdxl": SDXL
    | dict(
        block_out_channels=(16, 32, 64),
        attention_head_dim=(1, 2, 4),
        transformer_layers_per_block=(1, 2, 3),
        cross_attention_dim=stack.HIDDEN + SECOND_WIDTH,
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED,
    ),
}
IMAGES = torch.randint(
    0, 256, (4, 3, 128, 128), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


class Small(NamedTuple):
    """A small stack of one backbone, with what it computes once for four pictures."""

    preset: Preset
    frozen: precompute.Frozen
    foundations: precompute.Foundations

    @property
    def positions(self) -> int:
        return self.frozen.tokens.shape[1]


def write_small(name: str) -> Preset:
    """Return the preset with small random models in the true layout."""
    blank = blank_preset()
    folder = Path(new_folder(), "diffusion")
    shutil.copytree(blank.diffusion, folder)
    shutil.rmtree(folder / "unet")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        channels = stack.VAE["latent_channels"]
        unet = UNet2DConditionModel(
            in_channels=channels, out_channels=channels, norm_num_groups=8, **SMALL[name]
        )
        unet.save_pretrained(folder / "unet")
        if name == "sdxl":
            tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            about = stack.text_config(len(tokenizer))
            about.hidden_size, about.projection_dim = SECOND_WIDTH, POOLED
            CLIPTextModelWithProjection(about).save_pretrained(folder / "text_encoder_2")
            # As in the true model, the second tokenizer pads differently.
            tokenizer.pad_token = "!"
            tokenizer.save_pretrained(folder / "tokenizer_2")
    return replace(
        PRESETS[name],
        diffusion=str(folder),
        vlm=blank.vlm,
        vlm_pretrained=None,
        variant=None,
        image_size=128,
        fpn_channels=16,
        expert_channels=16,
    )


@pytest.fixture(scope="module", params=["sd21", "sdxl"])
def small(request):
    preset = write_small(request.param)
    foundations = precompute.load_foundations(preset)
    frozen = precompute.describe(IMAGES, foundations, RECIPES["paper"])
    # The untrained VLM captions every picture alike.
    captions = ["a photo of a cat", "a sad boy", "", "a photo of a dog with a big smile"]
    frozen.tokens, frozen.mask = precompute.knowledge_tokens(
        captions,
        [[("cat", "has", "smile")], [], [], []],
        RECIPES["paper"],
        foundations.text_encoder,
    )
    frozen.pooled = pooled_captions(captions, RECIPES["paper"], foundations.text_encoder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(config.PRESETS, preset.name, preset)
        yield Small(preset, frozen, foundations)


@pytest.fixture(scope="module")
def kadap(small):
    torch.manual_seed(0)
    return load_kadap(small.preset, RECIPES["paper"], small.positions).eval()


def batch_of(small, rows=range(4)):
    return gather(small.frozen, torch.tensor(list(rows)), "cpu")


@torch.no_grad()
def test_four_maps_finest_first_with_attention_in_the_middle(small, kadap):
    perception = kadap(*batch_of(small))
    channels = kadap.unet.config.block_out_channels
    last = channels[-1]
    sides = (16, 8, 4, 4) if small.preset.name == "sdxl" else (16, 8, 4, 2)
    widths = (channels[0], channels[1] + small.positions, channels[2] + small.positions, last)
    assert [tuple(map_.shape) for map_ in perception.maps] == [
        (4, width, side, side) for width, side in zip(widths, sides, strict=True)
    ]
    assert perception.v.shape == (4, 4 * small.preset.fpn_channels)
    assert kadap.text_width == small.frozen.tokens.shape[2] == kadap.unet.config.cross_attention_dim
    for attention in perception.attention:
        torch.testing.assert_close(attention.sum(1), torch.ones_like(attention.sum(1)))
        assert not attention.transpose(0, 1)[~small.frozen.mask.T].any()


def test_every_cross_attention_of_the_two_grids_is_recorded_and_no_other(small, kadap):
    processors = {
        name: layer.processor
        for name, layer in kadap.unet.named_modules()
        if isinstance(getattr(layer, "processor", None), StoringProcessor)
    }
    layers = 7 if small.preset.name == "sdxl" else 0
    of_grids = [len(names) for names in kadap._attention_layers]
    # Two attention blocks on the way down and three on the way up, of several layers each in SDXL.
    assert of_grids == ([10, 15] if layers else [5, 5])
    assert len(processors) == sum(of_grids)
    assert not any(name.startswith("mid_block") for name in processors)


@torch.no_grad()
def test_maps_are_the_plain_unets(small, kadap):
    """Compare with diffusers' own attention, under the conditions that its pipeline makes."""
    unet = UNet2DConditionModel.from_pretrained(small.preset.diffusion, subfolder="unet")
    outputs, batch, added = {}, batch_of(small), None
    for name in small.preset.backbone.maps:

        def keep(module, inputs, output, name=name):
            outputs[name] = output[0] if isinstance(output, tuple) else output

        unet.get_submodule(name).register_forward_hook(keep)
    if small.preset.name == "sdxl":
        pipeline = pipeline_of(small, StableDiffusionXLPipeline, unet)
        sizes = pipeline._get_add_time_ids((128, 128), (0, 0), (128, 128), torch.float32, POOLED)
        added = {"text_embeds": batch.pooled, "time_ids": sizes.expand(4, -1)}
    unet(
        batch.latents,
        1,
        batch.tokens,
        encoder_attention_mask=batch.mask,
        added_cond_kwargs=added,
    )
    theirs_in_order = [outputs[name] for name in small.preset.backbone.maps]
    for mine, theirs in zip(kadap.look(*batch.for_unet)[0], theirs_in_order, strict=True):
        torch.testing.assert_close(mine[:, : theirs.shape[1]], theirs, atol=1e-4, rtol=1e-4)


def pipeline_of(small, kind, unet):
    encoder = small.foundations.text_encoder
    parts = dict(
        vae=small.foundations.vae,
        text_encoder=encoder.model,
        tokenizer=encoder.tokenizer,
        unet=unet,
        scheduler=DDPMScheduler(),
    )
    if kind is StableDiffusionXLPipeline:
        tokenizer, model = encoder.parts[1]
        return kind(tokenizer_2=tokenizer, text_encoder_2=model, **parts)
    return kind(safety_checker=None, feature_extractor=None, requires_safety_checker=False, **parts)


@torch.no_grad()
def test_texts_are_encoded_as_by_diffusers_own_pipeline(small, kadap):
    texts = ["a sad boy", ""]
    kind = StableDiffusionXLPipeline if small.preset.name == "sdxl" else StableDiffusionPipeline
    pipeline = pipeline_of(small, kind, kadap.unet)
    expected = pipeline.encode_prompt(
        prompt=texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    tokens, mask = encode_texts(texts, small.foundations.text_encoder)
    torch.testing.assert_close(tokens, expected[0])
    assert mask.sum(1).tolist()[1] == 2 and tokens.shape[2] == kadap.text_width
    pooled = pooled_captions(texts, RECIPES["paper"], small.foundations.text_encoder)
    if small.preset.name == "sdxl":
        torch.testing.assert_close(pooled, expected[2])
        silent = replace(RECIPES["paper"], knowledge="triplets")
        unsaid = pooled_captions(texts, silent, small.foundations.text_encoder)
        assert torch.equal(unsaid, pooled[1:].expand(2, -1))
    else:
        assert pooled is None and len(small.foundations.text_encoder.parts) == 1


def test_a_step_trains_and_the_model_is_saved_and_loaded(small, tmp_path):
    settings = Config(preset=small.preset.name)
    torch.manual_seed(0)
    model, optimizer, accelerator = training.set_up(settings, "cpu")
    rows, labels = torch.arange(4), np.arange(4)
    labeller = training.pseudo_labeller(settings, labels, small.frozen, "cpu")
    training.source_step(model, small.frozen, torch.as_tensor(labels), rows, settings, accelerator)
    training.target_step(model, labeller, small.frozen, rows, 1.0, settings, accelerator)
    adapters = {name: p for name, p in model.named_parameters() if "lora_B" in name}
    # No adapter lies behind the finest map, so each one has a gradient.
    reached = [name for name, p in adapters.items() if p.grad is not None and p.grad.any()]
    assert len(reached) == len(adapters) > 0
    assert all(p.grad is None for name, p in model.named_parameters() if not p.requires_grad)
    training.update(optimizer, accelerator)
    model.save_pretrained(tmp_path)
    again = KCDP.from_pretrained(tmp_path, "cpu")
    probs = evaluate(model, small.frozen)
    assert np.array_equal(evaluate(again, small.frozen), probs)
    assert probs.shape == (4, 6) and not np.allclose(probs[0], probs[1], atol=1e-5)


def test_what_is_frozen_comes_from_the_cache_with_the_pooled_captions(small, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    files = []
    for i, image in enumerate(IMAGES):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(files[-1])
    pictures = Pictures("some", "train", files, None, [f"key{i}" for i in range(4)])
    described = precompute.describe(IMAGES, small.foundations, RECIPES["paper"])
    frozen = precompute.freeze(pictures, small.preset, RECIPES["paper"])
    empty = precompute.without_knowledge(frozen, RECIPES["paper"], small.foundations.text_encoder)
    if small.preset.name != "sdxl":
        assert frozen.pooled is None and empty.pooled is None and described.pooled is None
        return
    torch.testing.assert_close(frozen.pooled[:], described.pooled)
    nothing = pooled_captions([""], RECIPES["paper"], small.foundations.text_encoder)
    assert torch.equal(empty.pooled[:], nothing.expand(4, -1))


@torch.no_grad()
def test_the_pooled_caption_and_the_size_reach_the_unet(small, kadap):
    batch = batch_of(small)
    if small.preset.name != "sdxl":
        assert kadap._conditions(batch.latents, None) is None
        return
    plain = kadap.look(*batch.for_unet)[0][0]
    other = kadap.look(batch.latents, batch.tokens, batch.mask, batch.pooled.flip(0))[0][0]
    assert not torch.allclose(plain, other, atol=1e-4)
    with pytest.raises(KCDPError, match="freeze the pictures with the preset"):
        kadap.look(batch.latents, batch.tokens, batch.mask)


def test_a_recipe_that_trains_the_heads_alone_gets_the_same_maps_once(small):
    recipe = replace(RECIPES["paper"], trained="heads")
    torch.manual_seed(0)
    kadap, batch = load_kadap(small.preset, recipe, small.positions).eval(), batch_of(small)
    with torch.no_grad():
        maps, _ = kadap.look(*batch.for_unet)
        once = kadap(*batch._replace(latents=None, maps=maps))
        assert torch.equal(once.logits, kadap(*batch).logits) and once.attention == []


@pytest.mark.slow
@pytest.mark.parametrize("name", TRUE)
def test_true_sizes_go_through_the_same_lines(name, monkeypatch):
    """Run on the meta device, which computes shapes only.

    A mask has no values there, so every position counts as used.
    """
    monkeypatch.setattr(
        "kcdp_lib.perception.used_positions", lambda mask: torch.arange(mask.shape[1])
    )
    preset, recipe = FULL_SIZE[name], RECIPES["paper"]
    side, width = preset.image_size // 8, TRUE[name]["cross_attention_dim"]
    with torch.device("meta"):
        kadap = KADAP(
            UNet2DConditionModel(**TRUE[name]),
            154,
            recipe,
            preset.fpn_channels,
            preset.expert_channels,
            preset.lora_rank,
            backbone=preset.backbone,
            image_size=preset.image_size,
        )
        perception = kadap(
            torch.empty(2, 4, side, side),
            torch.empty(2, 154, width),
            torch.ones(2, 154, dtype=torch.bool),
            pooled=torch.empty(2, 1280) if preset.backbone.pooled_text else None,
        )
    coarsest = side // 4 if name == "sdxl" else side // 8
    assert [tuple(map_.shape[1:]) for map_ in perception.maps] == [
        (320, side, side),
        (640 + 154, side // 2, side // 2),
        (1280 + 154, side // 4, side // 4),
        (1280, coarsest, coarsest),
    ]
    assert perception.v.shape == (2, 1024) and side == TRUE[name]["sample_size"]
    layers = [len(names) for names in kadap._attention_layers]
    assert layers == ([10, 50] if name == "sdxl" else [5, 5])


def test_unknown_switch_values_are_refused_where_a_recipe_is_made():
    for switch in config.switch_values():
        with pytest.raises(KCDPError, match=f"{switch}='other' is not known"):
            replace(RECIPES["paper"], **{switch: "other"})


# -- the processor compared with diffusers' own


FLAGS = {
    "plain": {},
    "upcast": {"upcast_attention": True},
    "upcast softmax": {"upcast_softmax": True},
    "residual": {"residual_connection": True},
    "normed context": {"cross_attention_norm": "layer_norm"},
    "rescaled": {"rescale_output_factor": 2.0, "residual_connection": True},
    "all": {
        "upcast_attention": True,
        "upcast_softmax": True,
        "residual_connection": True,
        "cross_attention_norm": "layer_norm",
        "rescale_output_factor": 3.0,
    },
}


def attention_layer(flags):
    torch.manual_seed(0)
    layer = Attention(query_dim=32, cross_attention_dim=24, heads=4, dim_head=8, **flags)
    for p in layer.parameters():
        torch.nn.init.normal_(p, std=0.2)
    inputs = torch.randn(3, 10, 32), torch.randn(3, 7, 24)
    bias = torch.where(torch.rand(3, 1, 7) > 0.3, 0.0, -10_000.0)
    return layer, inputs, bias


@torch.no_grad()
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("flags", FLAGS.values(), ids=FLAGS)
def test_the_processor_computes_what_diffusers_does(flags, dtype, masked):
    layer, inputs, bias = attention_layer(flags)
    layer = layer.to(dtype)
    hidden, context = (x.to(dtype) for x in inputs)
    # With upcast scores, diffusers takes only an upcast mask.
    mask = bias.to(torch.float32 if layer.upcast_attention else dtype) if masked else None
    outputs = []
    for processor in (AttnProcessor(), StoringProcessor("attn2", Recorder())):
        layer.set_processor(processor)
        # diffusers takes one mask for each head
        heads = mask.repeat_interleave(layer.heads, 0) if masked else None
        given = heads if isinstance(processor, AttnProcessor) else mask
        outputs.append(processor(layer, hidden, context, given))
    tolerance = 1e-5 if dtype is torch.float32 else 2**-5
    scale = outputs[0].abs().max().item()
    torch.testing.assert_close(outputs[1], outputs[0], atol=tolerance * scale, rtol=0)
    assert outputs[1].dtype == dtype


@torch.no_grad()
@pytest.mark.parametrize("name", ["residual", "normed context", "rescaled"])
def test_a_flag_changes_the_output(name):
    outputs = []
    for flags in (FLAGS[name], {}):
        layer, inputs, _ = attention_layer(flags)
        processor = StoringProcessor("attn2", Recorder())
        outputs.append(processor(layer, *inputs))
    assert not torch.allclose(*outputs, atol=1e-2)


@torch.no_grad()
def test_scores_are_float32_where_the_layer_asks_for_it_under_autocast_too():
    """Compare the bfloat16 error of the stored probabilities with the flag and without."""
    errors = {}
    for upcast in (False, True):
        layer, (hidden, context), _ = attention_layer({"upcast_attention": upcast})
        hidden, context = 4 * hidden, 4 * context
        recorder = Recorder()
        processor, found = StoringProcessor("attn2", recorder), []
        for enabled in (False, True):
            with (
                recorder.recording() as records,
                torch.autocast("cpu", torch.bfloat16, enabled=enabled),
            ):
                # Query and key would be rounded in both cases; here they are exact in bfloat16.
                layer.to_q, layer.to_k = (
                    torch.nn.Linear(width, 32, bias=False) for width in (32, 24)
                )
                torch.nn.init.ones_(layer.to_q.weight), torch.nn.init.eye_(layer.to_k.weight)
                processor(layer, hidden.bfloat16().float(), context.bfloat16().float())
                found.append(records["attn2"].float())
        errors[upcast] = (found[0] - found[1]).abs().max().item()
    assert errors[True] < errors[False]


def test_nothing_is_recorded_outside_of_a_pass_or_after_one_that_failed():
    recorder = Recorder()
    recorder.keep("early", torch.ones(1))
    with pytest.raises(ZeroDivisionError), recorder.recording() as records:
        recorder.keep("inside", torch.ones(1))
        assert list(records) == ["inside"]
        raise ZeroDivisionError
    recorder.keep("late", torch.ones(1))
    assert list(records) == ["inside"] and recorder._records is None


def test_models_saved_before_are_read(small, tmp_path):
    """Their config.json has "knowledge", and the first ones lack "aligned"."""
    torch.manual_seed(0)
    settings = Config(preset=small.preset.name)
    model = KCDP(
        settings.sizes, settings.switches, classes=settings.classes, knowledge=False, aligned=False
    )
    model.save_pretrained(tmp_path)
    again = KCDP.from_pretrained(tmp_path, "cpu")
    assert not again.knowledge and not again.aligned
    about = json.loads((tmp_path / "config.json").read_text())
    del about["aligned"]
    (tmp_path / "config.json").write_text(json.dumps(about))
    assert KCDP.from_pretrained(tmp_path, "cpu").aligned


def test_text_encoders_of_two_backbones_are_not_taken_for_each_other(small):
    encoder = load_text_encoder(small.preset)
    assert isinstance(encoder.model, CLIPTextModel)
    assert encoder.width == SMALL[small.preset.name]["cross_attention_dim"]
