"""The training of the miniature foundation models.

VAE, text encoder, UNet and CoCa, each a short resumable loop.

Every step draws its batch from a generator seeded by (stage, step), so a resumed stage continues
exactly where it was.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from torch import nn
from transformers import CLIPTokenizer

from kcdp_lib import checkpoints, paths
from kcdp_lib.pretrain import corpus, stack, texts

# Optimizer steps and pictures (or texts) a step; chosen to fit 90 minutes on two cores
STEPS = {"text": (800, 128), "vae": (2000, 16), "unet": (2000, 32), "coca": (4000, 48)}
PEAK = {"text": 2e-3, "vae": 2e-3, "unet": 1e-3, "coca": 1e-3}


class Stage:
    """One stage's loop: AdamW with warm-up and cosine, and a checkpoint every `every` steps.

    The same command resumes it.
    """

    def __init__(self, name: str, work: Path, module: nn.Module, device: str, every: int = 200):
        self.name = name
        self.module = module.to(device)
        self.every = every
        self.steps, self.batch = STEPS[name]
        self.file = work / f"{name}.safetensors"
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=PEAK[name], betas=(0.9, 0.98), weight_decay=0.02
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first 5%, cosine to a hundredth at the end."""
        rising = step / (0.05 * self.steps) + 0.01
        falling = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (step / self.steps)))
        return PEAK[self.name] * min(rising, falling)

    def save(self, step: int) -> None:
        """Write weights, optimizer state and `step`, the next to do (`kcdp_lib.checkpoints`)."""
        module = {name: value.detach().cpu() for name, value in self.module.state_dict().items()}
        checkpoints.save(self.file, {"step": str(step)}, self.optimizer, module=module)

    def load(self) -> int:
        """Take up the checkpoint, if there is one; returns the next step."""
        about, tensors = checkpoints.read(self.file)
        if not about:
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
            rng = np.random.default_rng([6, sorted(STEPS).index(self.name), step])
            torch.manual_seed(step)
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate(step)
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
    pictures: np.ndarray, rows: np.ndarray, rng: np.random.Generator, device: str, shift: int = 4
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


def train_vae(work: Path, out: Path, device: str) -> None:
    """Reconstruction (L1 + L2) with a light KL term.

    The scaling factor makes the latents' standard deviation one, as in Stable Diffusion.
    """
    pictures, _ = corpus.build(work)
    vae = stack.new_vae()
    stage = Stage("vae", work, vae, device)

    def loss(rng, batch):
        x = images(pictures, draw_rows(rng, len(pictures), batch), rng, device, shift=0)
        posterior = vae.encode(x).latent_dist
        y = vae.decode(posterior.sample()).sample
        divergence = 1e-5 * posterior.kl().mean() / x[0].numel() * 100
        return (x - y).abs().mean() + (x - y).pow(2).mean() + divergence

    stage.run(loss)
    some = encode_latents(vae, pictures[:: len(pictures) // 256 + 1], device)
    vae.register_to_config(scaling_factor=round(1 / some.std().item(), 5))
    stack.save_diffusion(vae.cpu(), "vae", out)


@torch.no_grad()
def encode_latents(vae, pictures: np.ndarray, device: str) -> torch.Tensor:
    """Posterior modes [N, Z, S/4, S/4] of uint8 pictures [N, S, S, 3], unscaled.

    Method chapter, eq-latents with a factor of one.
    """
    modes = []
    for i in range(0, len(pictures), 64):
        block = torch.from_numpy(np.ascontiguousarray(pictures[i : i + 64]))
        pixels = block.permute(0, 3, 1, 2).float() / 127.5 - 1
        modes.append(vae.encode(pixels.to(device)).latent_dist.mode())
    return torch.cat(modes)


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """Symmetric contrastive loss [] in nats of paired embeddings [B, D].

    They need not be normalised.
    """
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_text(work: Path, out: Path, device: str) -> None:
    """Text only: paired sentences attract each other, and every token predicts the next.

    A contrastive loss on the end token, and a causal language model.
    """
    tokenizer = CLIPTokenizer.from_pretrained(out / "diffusion" / "tokenizer")
    encoder = stack.new_text_encoder(len(tokenizer))
    stage = Stage("text", work, encoder, device)

    def encode(sentences):
        ids = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(device)
        states = encoder(**ids)
        words = encoder.get_input_embeddings().weight
        logits = states.last_hidden_state[:, :-1] @ words.T * stack.HIDDEN**-0.5
        labels = ids.input_ids[:, 1:].masked_fill(ids.attention_mask[:, 1:] == 0, -100)
        return states.pooler_output, F.cross_entropy(logits.transpose(1, 2), labels)

    def loss(rng, batch):
        (a, lm_a), (b, lm_b) = map(encode, texts.pairs(rng, batch))
        return info_nce(a, b) + 0.3 * (lm_a + lm_b)

    stage.run(loss)
    stack.save_diffusion(encoder.cpu(), "text_encoder", out)


def train_unet(work: Path, out: Path, device: str) -> None:
    """Stable Diffusion's objective: predict the noise of scaled latents under the caption's tokens.

    One caption in ten is empty. Padding is hidden from the cross-attention in every other step, so
    that both recipes meet a context they know.
    """
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel

    pictures, captions = corpus.build(work)
    vae = AutoencoderKL.from_pretrained(out / "diffusion" / "vae", use_safetensors=True).to(device)
    latents = encode_latents(vae, pictures, device) * vae.config.scaling_factor
    tokenizer = CLIPTokenizer.from_pretrained(out / "diffusion" / "tokenizer")
    text_encoder = CLIPTextModel.from_pretrained(
        out / "diffusion" / "text_encoder", use_safetensors=True
    ).to(device)
    scheduler = DDPMScheduler(**{k: v for k, v in stack.SCHEDULER.items() if k.startswith("beta")})
    unet = stack.new_unet()
    stage = Stage("unet", work, unet, device)

    def loss(rng, batch):
        rows = draw_rows(rng, len(latents), batch)
        ids = tokenizer(
            [captions[i] if rng.random() > 0.1 else "" for i in rows],
            padding="max_length",
            truncation=True,
            return_tensors="pt",
        ).to(device)
        with torch.no_grad():
            tokens = text_encoder(ids.input_ids).last_hidden_state
        noise = torch.randn(batch, *latents.shape[1:]).to(device)
        t = torch.randint(0, 1000, (batch,)).to(device)
        noisy = scheduler.add_noise(latents[rows], noise, t)
        mask = ids.attention_mask if rng.random() < 0.5 else None
        return F.mse_loss(unet(noisy, t, tokens, encoder_attention_mask=mask).sample, noise)

    stage.run(loss)
    stack.save_diffusion(unet.cpu(), "unet", out)


class CaptionModel(nn.Module):
    """The CoCa with the auxiliary bag-of-words head that helps it see early.

    Only the CoCa is kept.
    """

    coca: Any

    def __init__(self, coca: Any, vocabulary: int):
        super().__init__()
        self.coca, self.words = coca, nn.Linear(stack.COCA["embed_dim"], vocabulary)


def train_coca(work: Path, out: Path, device: str) -> None:
    """CoCa's own losses (contrastive, captioning) on pictures, and two more.

    A bag-of-words loss, and a contrastive loss on text-only pairs.
    """
    import open_clip

    pictures, captions = corpus.build(work)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{out / 'vlm'}")
    model = CaptionModel(stack.new_coca(out), len(tokenizer.tokenizer))
    stage = Stage("coca", work, model, device)
    ids = tokenizer(captions)
    bags = torch.zeros(len(ids), len(tokenizer.tokenizer)).scatter_(1, ids, 1.0)
    common = (bags.mean(0) > 0.002) & (bags.mean(0) < 0.9)

    def loss(rng, batch):
        rows = draw_rows(rng, len(ids), batch)
        # [-1, 1] -> (value - 0.5) / 0.25, as in preprocess_cfg
        x = images(pictures, rows, rng, device) * 2
        text = ids[rows].to(device)
        output = model.coca(x, text)
        pooled = output["image_features"]
        logits = output["logits"].transpose(1, 2)
        caption_loss = F.cross_entropy(logits, output["labels"], ignore_index=0)
        words = model.words(pooled * 10)[:, common]
        bag_loss = F.binary_cross_entropy_with_logits(words, bags[rows][:, common].to(device))
        first, second = (tokenizer(side).to(device) for side in texts.pairs(rng, batch))
        text_loss = info_nce(model.coca.encode_text(first), model.coca.encode_text(second))
        pair_loss = info_nce(pooled, output["text_features"])
        return 2 * caption_loss + 10 * bag_loss + pair_loss + 0.5 * text_loss

    stage.run(loss)
    stack.save_coca(model.coca.cpu(), out)


STAGES = {"text": train_text, "vae": train_vae, "unet": train_unet, "coca": train_coca}


def report(out: Path) -> None:
    """The committed configuration of the pre-training: steps, batches, corpus."""
    config = {"steps": STEPS, "learning_rate": PEAK, "corpus": corpus.SHARES, "seed": corpus.SEED}
    (out / "pretraining.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
