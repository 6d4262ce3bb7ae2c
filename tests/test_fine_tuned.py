"""The fine-tuned backbone that stands in for TGCA-PVT (chapter "A fair comparison")."""

import numpy as np
import pytest
import timm
import torch
from torch import nn

from kcdp_book import fine_tuned

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def weights():
    """Return random weights in the layout of ImageNet's, for 1,000 classes."""
    torch.manual_seed(0)
    return timm.create_model(fine_tuned.BACKBONE).state_dict()


@pytest.fixture
def pictures():
    """Return red and blue noisy pictures, uint8 [24, 3, 64, 64], and labels [24], one unknown."""
    noise = torch.randint(0, 100, (24, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    labels = np.arange(24) % 2
    noise[labels == 0, 0] += 150
    noise[labels == 1, 2] += 150
    labels[5] = -1
    return noise.to(torch.uint8), labels


def test_it_keeps_imagenets_weights_but_for_the_last_layer(weights):
    model = fine_tuned.new_backbone(6, weights)
    own = model.state_dict()
    assert own["classifier.weight"].shape == (6, weights["classifier.weight"].shape[1])
    assert all(
        torch.equal(value, own[name]) for name, value in weights.items() if "classifier" not in name
    )
    with pytest.raises(RuntimeError, match="conv_stem"):
        fine_tuned.new_backbone(
            6, {name: value for name, value in weights.items() if "stem" not in name}
        )


def test_it_learns(weights, pictures, monkeypatch):
    """It tells red from blue, though one label is missing."""
    images, labels = pictures
    monkeypatch.setattr(fine_tuned, "EPOCHS", 40)
    monkeypatch.setattr(fine_tuned, "BATCH", 8)
    *_, model = fine_tuned.epochs(weights, images, labels, 2, 3e-3, seed=0)
    # the model's running averages would need more steps
    probs = fine_tuned.answer(fine_tuned.with_averages_of(model, images), images)
    assert probs.shape == (24, 2) and np.allclose(probs.sum(1), 1, atol=1e-5)
    assert (probs.argmax(1) == np.arange(24) % 2).mean() > 0.9


def test_fewer_pictures_than_a_batch_are_one(weights, pictures, monkeypatch):
    images, labels = pictures
    monkeypatch.setattr(fine_tuned, "EPOCHS", 2)
    assert len(images) < fine_tuned.BATCH
    first, second = (
        fine_tuned.answer(model, images)
        for model in fine_tuned.epochs(weights, images, labels, 2, 3e-3, seed=0)
    )
    assert not np.allclose(first, second)


def test_the_best_on_held_pictures_is_taken(weights, pictures, monkeypatch):
    """The best of all rates and epochs is returned as it was, whatever later epochs do."""
    images, _ = pictures
    held = np.arange(24) % 2

    class Says(nn.Module):
        """Predict the first `right` pictures correctly and the others wrongly."""

        def __init__(self):
            super().__init__()
            self.right = nn.Parameter(torch.zeros(1))

        def forward(self, pixels):
            wanted = torch.where(torch.arange(24) < self.right, 1, -1)
            return torch.stack([wanted * (1.0 - 2 * torch.from_numpy(held)), 0 * wanted], 1)

    def told(weights, images, labels, classes, rate, seed):
        model = Says()
        for right in {3e-4: (8, 20, 6), 1e-3: (12, 16, 4)}[rate]:
            model.right.data.fill_(right)
            yield model

    monkeypatch.setattr(fine_tuned, "epochs", told)
    model = fine_tuned.fine_tune(weights, images, held, images, held, 2, seed=0)
    assert model.right.item() == 20


def test_averages_of_others_change_the_norms_alone(weights, pictures):
    images, _ = pictures
    model = fine_tuned.new_backbone(2, weights).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapted = fine_tuned.with_averages_of(model, images)
    moved = {name for name, value in adapted.state_dict().items() if (value != before[name]).any()}
    assert moved and all("running" in name or "num_batches" in name for name in moved)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    first = next(module for module in adapted.modules() if isinstance(module, nn.BatchNorm2d))
    seen = model.conv_stem(fine_tuned.normalised(images))
    torch.testing.assert_close(first.running_mean, seen.mean((0, 2, 3)), atol=1e-4, rtol=1e-4)


def test_augmented_pictures_differ_and_keep_their_size():
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    augment = fine_tuned.augmentation(64)
    first, second = augment(image), augment(image)
    assert first.shape == image.shape and first.dtype == torch.uint8
    assert not torch.equal(first, second)
