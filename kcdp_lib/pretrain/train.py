"""The training of the miniature foundation models.

VAE, text encoder, UNet and CoCa, each a short resumable loop.

Every step draws its batch from a generator seeded by (stage, step), so a resumed stage continues
exactly where it was.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from .. import paths
from . import corpus, stack, texts

# optimizer steps and pictures (or texts) a step; chosen to fit 90 minutes on two cores
STEPS = {"text": (800, 128), "vae": (2000, 16), "unet": (2000, 32), "coca": (4000, 48)}
PEAK = {"text": 2e-3, "vae": 2e-3, "unet": 1e-3, "coca": 1e-3}


class Stage:
    """One stage's loop: AdamW with warm-up and cosine, a checkpoint every `every` steps, resumed by
    the same command.
    """

    def __init__(self, name: str, work: Path, module: nn.Module, device: str, every: int = 200):
        self.name, self.module, self.every, self.device = name, module.to(device), every, device
        self.steps, self.batch = STEPS[name]
        self.file = work / f"{name}.safetensors"
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=PEAK[name], betas=(0.9, 0.98), weight_decay=0.02
        )

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first 5%, cosine to a hundredth at the end."""
        done = step / self.steps
        return PEAK[self.name] * min(
            step / (0.05 * self.steps) + 0.01, 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * done))
        )

    def save(self, step: int) -> None:
        """Write weights, optimizer state and `step`, the next to do, into one file, replaced whole."""
        state = {f"module.{k}": v for k, v in self.module.state_dict().items()}
        for i, p in enumerate(self.parameters):
            state.update({f"optimizer.{i}.{k}": v for k, v in self.optimizer.state[p].items()})
        part = self.file.with_suffix(".part")
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in state.items()},
            part,
            metadata={"step": str(step)},
        )
        part.replace(self.file)

    def load(self) -> int:
        """Take up the checkpoint, if there is one; returns the next step."""
        if not self.file.exists():
            return 0
        from safetensors import safe_open

        with safe_open(self.file, "pt") as f:
            step = int(f.metadata()["step"])
        state = load_file(self.file, device=self.device)
        self.module.load_state_dict({k[7:]: v for k, v in state.items() if k.startswith("module.")})
        for i, p in enumerate(self.parameters):
            prefix = f"optimizer.{i}."
            self.optimizer.state[p] = {
                k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)
            }
            self.optimizer.state[p]["step"] = self.optimizer.state[p]["step"].cpu()
        return step

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
                print(
                    f"{self.name}: step {step + 1} of {self.steps}, loss "
                    f"{np.mean(losses[-self.every :]):.4f}",
                    flush=True,
                )
        self.module.eval()


def images(
    pictures: np.ndarray, rows: np.ndarray, rng: np.random.Generator, device: str, shift: int = 4
) -> torch.Tensor:
    """Rows [B] of the corpus, uint8 pictures [N, S, S, 3], as float images [B, 3, S, S] in [-1, 1],
    perhaps mirrored (all of them).

    With `shift`, also moved by up to so many pixels, and with a little colour jitter.
    """
    x = torch.from_numpy(pictures[np.sort(rows)]).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    if rng.random() < 0.5:
        x = x.flip(3)
    if shift:
        padded = F.pad(x, (shift,) * 4, mode="replicate")
        dx, dy = rng.integers(0, 2 * shift + 1, 2)
        x = padded[:, :, dy : dy + x.shape[2], dx : dx + x.shape[3]]
        gain = torch.from_numpy(rng.uniform(0.8, 1.2, (len(rows), 3, 1, 1)).astype(np.float32)).to(
            device
        )
        x = ((x + 1) * gain - 1).clamp(-1, 1)
    return x


def draw_rows(rng: np.random.Generator, n: int, batch: int) -> np.ndarray:
    """int64 [B] of B = `batch` different rows below n, in rising order, as a memory-mapped file
    likes them.
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
        return (
            (x - y).abs().mean()
            + (x - y).pow(2).mean()
            + 1e-5 * posterior.kl().mean() / x[0].numel() * 100
        )

    stage.run(loss)
    vae.register_to_config(
        scaling_factor=round(
            1 / encode_latents(vae, pictures[:: len(pictures) // 256 + 1], device).std().item(), 5
        )
    )
    stack.save_diffusion(vae.cpu(), "vae", out)


@torch.no_grad()
def encode_latents(vae, pictures: np.ndarray, device: str) -> torch.Tensor:
    """Posterior modes [N, Z, S/4, S/4] of uint8 pictures [N, S, S, 3], unscaled (eq-latents of the
    method chapter with a factor of one).
    """
    blocks = [
        torch.from_numpy(np.ascontiguousarray(pictures[i : i + 64])).permute(0, 3, 1, 2).float()
        / 127.5
        - 1
        for i in range(0, len(pictures), 64)
    ]
    return torch.cat([vae.encode(b.to(device)).latent_dist.mode() for b in blocks])


def info_nce(a: torch.Tensor, b: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """Symmetric contrastive loss [] in nats of paired embeddings [B, D], which need not be
    normalised.
    """
    logits = F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / temperature
    target = torch.arange(len(a), device=a.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def train_text(work: Path, out: Path, device: str) -> None:
    """Text only: paired sentences attract each other (contrastive on the end token) and every token
    predicts the next (causal language model).
    """
    tokenizer = CLIPTokenizer.from_pretrained(out / "diffusion" / "tokenizer")
    encoder = stack.new_text_encoder(len(tokenizer))
    stage = Stage("text", work, encoder, device)

    def encode(sentences):
        ids = tokenizer(sentences, padding=True, truncation=True, return_tensors="pt").to(device)
        states = encoder(**ids)
        logits = (
            states.last_hidden_state[:, :-1]
            @ encoder.get_input_embeddings().weight.T
            * stack.HIDDEN**-0.5
        )
        labels = ids.input_ids[:, 1:].masked_fill(ids.attention_mask[:, 1:] == 0, -100)
        return states.pooler_output, F.cross_entropy(logits.transpose(1, 2), labels)

    def loss(rng, batch):
        (a, lm_a), (b, lm_b) = map(encode, texts.pairs(rng, batch))
        return info_nce(a, b) + 0.3 * (lm_a + lm_b)

    stage.run(loss)
    stack.save_diffusion(encoder.cpu(), "text_encoder", out)


def train_unet(work: Path, out: Path, device: str) -> None:
    """Stable Diffusion's objective: predict the noise of scaled latents under the caption's tokens.

    One caption in ten is empty.

    Padding is hidden from the cross-attention in every other step, so that both recipes meet a
    context they know.
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
        x, noise, t = (
            latents[rows],
            torch.randn(batch, *latents.shape[1:]).to(device),
            torch.randint(0, 1000, (batch,)).to(device),
        )
        mask = ids.attention_mask if rng.random() < 0.5 else None
        return F.mse_loss(
            unet(scheduler.add_noise(x, noise, t), t, tokens, encoder_attention_mask=mask).sample,
            noise,
        )

    stage.run(loss)
    stack.save_diffusion(unet.cpu(), "unet", out)


class CaptionModel(nn.Module):
    """The CoCa with the auxiliary bag-of-words head that helps it see early.

    Only the CoCa is kept.
    """

    def __init__(self, coca: nn.Module, vocabulary: int):
        super().__init__()
        self.coca, self.words = coca, nn.Linear(stack.COCA["embed_dim"], vocabulary)


def train_coca(work: Path, out: Path, device: str) -> None:
    """CoCa's own losses (contrastive, captioning) on pictures, a bag-of-words loss, and a
    contrastive loss on text-only pairs.
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
        x = (
            images(pictures, rows, rng, device) * 2
        )  # [-1, 1] -> (value - 0.5) / 0.25, as in preprocess_cfg
        text = ids[rows].to(device)
        said = model.coca(x, text)
        caption_loss = F.cross_entropy(
            said["logits"].transpose(1, 2), said["labels"], ignore_index=0
        )
        pooled = said["image_features"]
        bag_loss = F.binary_cross_entropy_with_logits(
            model.words(pooled * 10)[:, common], bags[rows][:, common].to(device)
        )
        a, b = texts.pairs(rng, batch)
        text_loss = info_nce(
            model.coca.encode_text(tokenizer(a).to(device)),
            model.coca.encode_text(tokenizer(b).to(device)),
        )
        return (
            2 * caption_loss
            + 10 * bag_loss
            + info_nce(said["image_features"], said["text_features"])
            + 0.5 * text_loss
        )

    stage.run(loss)
    stack.save_coca(model.coca.cpu(), out)


STAGES = {"text": train_text, "vae": train_vae, "unet": train_unet, "coca": train_coca}


def report(out: Path) -> None:
    """The committed configuration of the pre-training: steps, batches, corpus."""
    config = {"steps": STEPS, "learning_rate": PEAK, "corpus": corpus.SHARES, "seed": corpus.SEED}
    (out / "pretraining.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
