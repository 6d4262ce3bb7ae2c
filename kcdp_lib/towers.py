"""Image tower of the miniature VLM.

It is registered with timm, so that open_clip builds it from a config like any other. A CoCa needs a
tower that returns (pooled, tokens). open_clip's ViTs do, but one of this size recognises little. A
small convolutional network pre-trained on ImageNet recognises more, and open_clip looks for those
in timm's registry.
"""

import timm
import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import nn


class EfficientTokens(nn.Module):
    """EfficientNet-Lite0: images [B, 3, S, S] -> pooled [B, D], tokens [B, (S/16)^2 + 1, D].

    The first token is the pooled one. D is 192, S a multiple of 32 pixels. Only the miniature VLM
    uses it (chapter "The miniature models"); the full-size CoCa has a ViT.
    """

    def __init__(self, embed_dim: int = 192):
        super().__init__()
        self.num_features = embed_dim
        self.default_cfg: dict = {}
        self.trunk = timm.create_model(
            "tf_efficientnet_lite0", features_only=True, out_indices=(2, 3, 4)
        )
        fine, middle, coarse = self.trunk.feature_info.channels()
        self.fine = nn.Conv2d(fine, embed_dim, 1)
        self.middle = nn.Conv2d(middle, embed_dim, 1)
        self.coarse = nn.Conv2d(coarse, embed_dim, 1)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map images [B, 3, S, S] to pooled [B, D] and tokens [B, (S/16)^2 + 1, D].

        The images are floats, normalised as in preprocess_cfg.
        """
        # [B, 40, S/8, S/8], [B, 112, S/16, S/16], [B, 320, S/32, S/32]
        fine, middle, coarse = self.trunk(images)
        size = middle.shape[-2:]
        tokens = (
            self.middle(middle)
            + F.interpolate(self.coarse(coarse), size=size, mode="nearest")
            + F.adaptive_max_pool2d(self.fine(fine), size)
        )
        tokens = tokens.flatten(2).transpose(1, 2)
        # the mean says what the picture is about, the max keeps a tear of three pixels
        pooled = self.norm(tokens.mean(1) + tokens.amax(1))
        return pooled, torch.cat([pooled[:, None], self.norm(tokens)], 1)


@register_model
def kcdp_efficient_tokens(
    pretrained: bool = False, num_classes: int = 0, global_pool: str = "", **kwargs
) -> EfficientTokens:
    """Build the tower; open_clip calls this for `timm_model_name: kcdp_efficient_tokens`.

    Its weights are part of the CoCa's.
    """
    return EfficientTokens()
