"""Figures of a run and of the chapters.

Every function returns a matplotlib figure; `png` turns one into bytes. Only PNG, because nbval
compares the text of SVG and PDF.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache

import matplotlib.figure
import numpy as np
import seaborn as sns
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import PercentFormatter
from scipy.ndimage import uniform_filter1d

FONT = "DejaVu Sans"  # comes with matplotlib, so figures look the same on all machines
NAME_LENGTH, CAPTION_LENGTH = 32, 240  # characters of names and captions in figures

STYLE = {
    **sns.axes_style("whitegrid"),
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#e6e6e6",
    "axes.edgecolor": "#999999",
    "font.family": FONT,
    "text.usetex": False,
}
PICTURES = {**STYLE, "axes.grid": False}
CENTRED = {  # for small titles above pictures
    **PICTURES,
    "axes.titlelocation": "center",
    "axes.titleweight": "normal",
    "axes.titlesize": 9,
}
COLOURS = sns.color_palette("colorblind")
SOURCE, TARGET, GREY = COLOURS[0], COLOURS[1], (0.62, 0.62, 0.62)
NAMES = {
    "kcdp": "KCDP",
    "kcdp_paper": "KCDP, paper",
    "source_only": "source only",
    "source_only_no_knowledge": "source only,\nno knowledge",
    "caption_only": "caption only",
    "text_encoder": "text encoder,\nasked directly",
    "knowledge_probe": "linear probe\nof k",
    "zero_shot_vlm": "zero-shot VLM",
    "majority": "majority",
    "linear_probe": "linear probe",
    "image_and_text": "image and text",
    "oracle": "oracle, taught\nby target labels",
    "standardised_probe": "probe, each domain\nstandardised",
    "adabn": "AdaBN",
    "dann": "DANN",
    "cdan": "CDAN",
    "mcc": "MCC",
    "mcd": "MCD",
    "shot": "SHOT",
    "fixmatch": "FixMatch",
    "fine_tuned": "ImageNet backbone",
    "fine_tuned_adabn": "ImageNet backbone,\nAdaBN",
}


class Figure(matplotlib.figure.Figure):
    """A figure that a notebook shows as PNG.

    It does not use pyplot, and so is not in its list of open figures.
    """

    def _repr_png_(self) -> bytes:
        return png(self, dpi=110)


def png(figure: matplotlib.figure.Figure, dpi: int = 130) -> bytes:
    """Return the figure as PNG bytes.

    They contain no date or version, so that equal figures are equal files.
    """
    buffer = io.BytesIO()
    figure.savefig(
        buffer,
        format="png",
        dpi=dpi,
        bbox_inches="tight",
        facecolor="white",
        metadata={"Software": None},
    )
    return buffer.getvalue()


def learning_curves(history: Sequence[Mapping]) -> Figure:
    """Plot losses, source accuracy and pseudo-label coverage by optimizer step.

    history: a mapping of numbers for each step.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.2), layout="constrained")
        losses, fit, pseudo = figure.subplots(1, 3, sharex=True)
        _curve(losses, history, "source_loss", SOURCE, "emotion, source")
        _curve(losses, history, "alignment_loss", COLOURS[2], "counterfactual, source")
        _curve(losses, history, "target_loss", TARGET, "emotion, pseudo-labels")
        losses.set(title="Losses", ylim=(0, None))
        losses.legend(frameon=False)
        _curve(fit, history, "source_accuracy", SOURCE)
        fit.set_title("Accuracy on source batches")
        _curve(pseudo, history, "coverage", TARGET)
        pseudo.set_title("Target pictures with a pseudo-label")
        figure.supxlabel("optimizer step", size="medium")
        for axes in (fit, pseudo):
            axes.set(ylim=(0, 1.02))
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        return figure


def confusion(counts: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """Plot one confusion matrix for each title in `counts`.

    Colours are shares of the true class, numbers are pictures.
    """
    with matplotlib.rc_context(PICTURES):
        figure = Figure(figsize=(4.6 * len(counts) + 0.4, 4.2), layout="constrained")
        panels = np.atleast_1d(figure.subplots(1, len(counts)))
        for axes, (title, rows) in zip(panels, counts.items(), strict=True):
            table = np.asarray(rows)
            share_matrix(axes, table, classes, rotation=35)
            axes.set(title=f"{title} (n = {table.sum()})", xlabel="predicted", ylabel="true")
        return figure


def share_matrix(axes, counts: np.ndarray, classes: Sequence[str], rotation: float) -> None:
    """Plot counts [C, C] as numbers, with colours by their share of the row.

    The labels below are rotated by `rotation` degrees.
    """
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    sns.heatmap(
        share,
        ax=axes,
        annot=counts,
        fmt="d",
        cmap="Blues",
        vmin=0,
        vmax=1.5,  # so that dark letters can be read on the highest
        cbar=False,
        square=True,
        linewidths=0.5,
        linecolor="white",
        xticklabels=classes,
        yticklabels=classes,
        annot_kws={"size": 9, "color": "#222222"},
    )
    axes.tick_params(axis="x", rotation=rotation, length=0)
    axes.tick_params(axis="y", rotation=0, length=0)


def bars(scores: Mapping[str, Mapping], title: str = "") -> Figure:
    """Plot the macro-F1 of each entry of `scores` as a bar with its 95% interval, longest first.

    scores: name -> result of `metrics.scores`.
    """
    scores = dict(sorted(scores.items(), key=lambda entry: -entry[1]["macro_f1"]))
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7, 0.55 * len(scores) + 1.1), layout="constrained")
        axes = figure.subplots()
        names = [NAMES.get(name, name) for name in scores]
        values = np.array([entry["macro_f1"] for entry in scores.values()])
        low, high = np.array([entry["macro_f1_interval"] for entry in scores.values()]).T
        colours = [TARGET if name == "kcdp" else GREY for name in scores]
        # a bootstrap interval may not contain the observed value
        sides = [np.maximum(values - low, 0), np.maximum(high - values, 0)]
        look = {"ecolor": "#333333", "elinewidth": 1.2, "capsize": 3}
        axes.barh(names, values, color=colours, height=0.62, xerr=sides, error_kw=look)
        for row, (value, top) in enumerate(zip(values, high, strict=True)):
            axes.text(max(value, top) + 0.012, row, f"{value:.2f}", va="center", fontsize=9)
        axes.set(title=title, xlabel="macro-F1", xlim=(0, 1))
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        return figure


def prediction_sheet(cards: Sequence[Mapping]) -> Figure:
    """Show a card for each picture, two in a row: picture, attention, prediction and caption.

    A card holds `image` [3, H, W] uint8, `caption`, `predicted`, `probability`, `label` (None if
    unknown), `word` and the `attention` [H, W] to it, in [0, 1].
    """
    with matplotlib.rc_context(CENTRED):
        rows = -(-len(cards) // 2)
        figure = Figure(figsize=(11.2, 1.85 * rows), layout="constrained")
        grid = figure.subplots(rows, 6, squeeze=False, width_ratios=[1, 1, 1.5] * 2)
        for axes in grid.ravel():
            axes.set_axis_off()
        for (picture, map_, text), card in zip(grid.reshape(-1, 3), cards, strict=False):
            _attended(picture, map_, card)
            _describe(text, card)
        return figure


def whole_method(cards: Mapping[str, Mapping], classes: Sequence[str]) -> Figure:
    """Show the whole method on single pictures, a row for each name.

    A row has the picture, its caption and triplets, the attention to one word, the similarity to
    its knowledge under each emotion's prompt, and the prediction.

    A card is `prediction_sheet`'s with `triplets`, `similarities` [C], cosines, and `probs` [C], in
    the order of the C classes.
    """
    with matplotlib.rc_context({**PICTURES, "axes.titlesize": 10}):
        figure = Figure(figsize=(9.5, 2.4 * len(cards)), layout="constrained")
        grid = figure.subplots(len(cards), 5, squeeze=False, width_ratios=[1, 1.05, 1, 0.95, 0.95])
        for row, (name, card) in zip(grid, cards.items(), strict=True):
            picture, text, map_, asked, answer = row
            _attended(picture, map_, card)
            for axes in (picture, text, map_):
                axes.set_axis_off()
                axes.set_anchor("NW")
            picture.set_title(name)
            triplets = [f"({', '.join(triplet)})" for triplet in card["triplets"][:4]]
            said = [plain_caption(card["caption"]), *map(plain_text, triplets)]
            text.set_title("what is said of it")
            lines = "\n\n".join(textwrap.fill(part, 27) for part in said)
            _write(text, 0.97, lines, fontsize=9.5, linespacing=1.25)
            _ranked(asked, classes, card["similarities"], "and if it were ...?")
            asked.set(xlabel="similarity", xlim=_around(card["similarities"]))
            _ranked(answer, classes, card["probs"], f"answer: {card['predicted']}")
            answer.set(xlabel="probability", xlim=(0, 1), yticklabels=[])
        return figure


def _ranked(axes, classes: Sequence[str], values: Sequence[float], title: str) -> None:
    """Plot a dot on a stem for each class, the highest in colour."""
    colours = [TARGET if value == max(values) else GREY for value in values]
    # stems start beyond the left edge, because the axis of cosines shows no zero
    axes.hlines(range(len(classes)), -2, values, color=colours, linewidth=3)
    axes.scatter(values, range(len(classes)), color=colours, s=45, zorder=3)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(title=title, ylim=(len(classes) - 0.5, -0.5))
    axes.tick_params(length=0, labelsize=9)


def _around(values: Sequence[float]) -> tuple[float, float]:
    """Return the limits of an axis with some room on both sides."""
    low, high = float(np.min(values)), float(np.max(values))
    return low - 0.2 * (high - low), high + 0.1 * (high - low)


def _attended(picture, map_, card: Mapping) -> None:
    """Show a card's picture, and its attention to the word over a grey copy."""
    image = np.asarray(card["image"]).transpose(1, 2, 0)
    picture.imshow(image)
    grey = map_.imshow(image.mean(-1), cmap="gray", vmin=0, vmax=255)
    look = {"cmap": "magma", "alpha": 0.65, "interpolation": "bilinear"}
    map_.imshow(card["attention"], extent=grey.get_extent(), **look)
    word = plain_text(card["word"], 20)
    map_.set_title(f"“{word}”" if word else "", style="italic")


def _curve(axes, history: Sequence[Mapping], key: str, colour, label: str = "") -> None:
    """Plot raw values as a faint line, and their centred running mean over it.

    Steps without a value (None) are skipped.
    """
    pairs = [(row["step"], row[key]) for row in history if row.get(key) is not None]
    if not pairs:
        return
    x, y = np.array(pairs, dtype=float).T
    if len(x) <= x[-1] - x[0]:  # steps without a value between those with one: a small target
        axes.plot(x, y, ".", color=colour, label=label)
        return
    smooth = uniform_filter1d(y, 2 * (len(x) // 30) + 1, mode="nearest")
    axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
    axes.plot(x, smooth, color=colour, linewidth=1.8, label=label)


def _describe(axes, card: Mapping) -> None:
    """Write the predicted and the true emotion, then the caption, beside a picture."""
    label, colour = "no label", "#333333"
    if card["label"] is not None:
        label = f"true: {card['label']}"
        colour = "#1a7f37" if card["label"] == card["predicted"] else "#b42318"
    answer = f"{card['predicted']}  {card['probability']:.0%}"
    caption = textwrap.fill(plain_caption(card["caption"]), 28)
    _write(axes, 0.97, answer, weight="bold", fontsize=11, color=colour)
    _write(axes, 0.79, label, fontsize=9, color="#555555")
    _write(axes, 0.58, caption, fontsize=8, linespacing=1.3)


def _write(axes, height: float, lines: str, **look) -> None:
    """Write lines below a height (0 to 1) of a panel.

    They are outside the layout, so that long text does not shrink the pictures.
    """
    axes.text(0, height, lines, transform=axes.transAxes, va="top", in_layout=False, **look)


def side_titles(source: str, target: str) -> tuple[str, str]:
    """Return the titles of source and target in a figure: their names.

    If the names are the same, the roles are added.
    """
    source, target = plain_text(source, NAME_LENGTH), plain_text(target, NAME_LENGTH)
    return (f"source: {source}", f"target: {target}") if source == target else (source, target)


def plain_caption(caption: str) -> str:
    """Return a caption as `plain_text`, without the tokenizer's spaces before punctuation."""
    return plain_text(caption.removesuffix(".").strip().replace(" ,", ","), CAPTION_LENGTH)


def plain_text(text: str, length: int = CAPTION_LENGTH) -> str:
    """Return any text on one line in the figures' font, safe from matplotlib's mathematics.

    Characters that the font lacks become boxes; a long text is cut.
    """
    text = re.sub(r"[\s\x00-\x1f\x7f]+", " ", text).strip()
    text = "".join(letter if ord(letter) in _letters() else "\N{WHITE SQUARE}" for letter in text)
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return cut.replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    """Return the code points that the figures' font has."""
    return frozenset(get_font(findfont(FONT)).get_charmap())
