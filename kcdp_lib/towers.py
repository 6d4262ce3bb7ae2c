"""The miniature VLM's image tower.

It is registered with timm, so that open_clip builds it from a config like any other. A CoCa needs a
tower that gives (pooled, tokens). open_clip's ViTs do, but a ViT trained from nothing for minutes
on a laptop sees little; a convolutional tower of the same size sees well. timm's registry is the
place where open_clip looks for those.
"""

import torch
from timm.models import register_model
from torch import nn


class ConvTokens(nn.Module):
    """A plain residual CNN: images [B, 3, S, S] -> (pooled [B, D], tokens [B, (S/8)^2 + 1, D]).

    The first token is the pooled one.

    For the miniature VLM only (chapter "The miniature models"): the full-size CoCa has its own ViT.
    """

    def __init__(self, width: int = 32, embed_dim: int = 128):
        super().__init__()
        self.num_features = embed_dim
        self.default_cfg: dict = {}
        w = (width, width * 2, width * 4)
        self.stem = nn.Sequential(
            nn.Conv2d(3, w[0], 5, 2, 2, bias=False), nn.BatchNorm2d(w[0]), nn.ReLU()
        )
        self.stages = nn.Sequential(
            *[
                Residual(*io)
                for io in (
                    (w[0], w[0], 1),
                    (w[0], w[1], 2),
                    (w[1], w[1], 1),
                    (w[1], w[2], 2),
                    (w[2], w[2], 1),
                    (w[2], w[2], 1),
                )
            ]
        )
        self.project = nn.Conv2d(w[2], embed_dim, 1)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [B, 3, S, S] -> pooled [B, D], tokens [B, (S/8)^2 + 1, D].

        The images are floats as preprocess_cfg normalises them. D is 128, S a multiple of 8 pixels.
        """
        tokens = self.project(self.stages(self.stem(images))).flatten(2).transpose(1, 2)
        # mean and max: the mean says what the picture is about, the max keeps a tear of three
        # pixels
        pooled = self.norm(tokens.mean(1) + tokens.amax(1))
        return pooled, torch.cat([pooled[:, None], self.norm(tokens)], 1)


class Residual(nn.Module):
    """Two 3x3 convolutions with a shortcut.

    [B, C_in, H, W] -> [B, C_out, H / stride, W / stride].
    """

    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(c_out),
            nn.ReLU(),
            nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(c_out),
        )
        self.skip = (
            nn.Identity()
            if stride == 1 and c_in == c_out
            else nn.Conv2d(c_in, c_out, 1, stride, bias=False)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """From x [B, C_in, H, W] to [B, C_out, H / stride, W / stride], 0 or more."""
        return torch.relu(self.skip(x) + self.body(x))


@register_model
def kcdp_conv_tokens(
    pretrained: bool = False, num_classes: int = 0, global_pool: str = "", **kwargs
) -> ConvTokens:
    """The entry point of timm, which open_clip calls for `timm_model_name: kcdp_conv_tokens`.

    Weights come with the whole CoCa.
    """
    return ConvTokens()
