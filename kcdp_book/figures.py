"""Figures of the chapters; every function returns a matplotlib figure.

It also exports the figures of `kcdp_lib.figures`, so that a page imports one module.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas
import seaborn as sns
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter
from sklearn.metrics import confusion_matrix

from kcdp_lib.figures import (
    CENTRED,
    COLOURS,
    GREY,
    NAMES,
    SOURCE,
    STYLE,
    TARGET,
    Figure,
    plain_caption,
    plain_text,
    share_matrix,
)
from kcdp_lib.figures import bars as bars
from kcdp_lib.figures import png as png

# a method has one colour in all charts with lines
LINES = {
    "KCDP": TARGET,
    "KCDP, best": TARGET,
    "KCDP, paper": COLOURS[0],
    "AdaBN": COLOURS[9],
    "MCD": COLOURS[3],
    "FixMatch": COLOURS[6],
    "probe, each domain standardised": COLOURS[4],
    "caption only": COLOURS[2],
    "image and text": COLOURS[5],
    "zero-shot VLM": "#555555",
}
# In tables of coloured numbers, the highest is no darker than dark letters can be read on
PALER, INK = 1.5, "#222222"


def contact_sheet(
    images: np.ndarray, titles: Sequence[str] = (), columns: int = 6, size: float = 1.5
) -> Figure:
    """Show pictures [N, 3, H, W] (uint8) in rows, with a title each if given.

    size: inches per picture.
    """
    with matplotlib.rc_context(CENTRED):
        rows = -(-len(images) // columns)
        lines = max((title.count("\n") + 1 for title in titles), default=0)
        figure = Figure(
            figsize=(columns * size, rows * (size + 0.16 * lines + 0.08 * bool(lines))),
            layout="constrained",
        )
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        for axes, image in zip(grid, images, strict=False):  # the last row may not be full
            axes.imshow(np.asarray(image).transpose(1, 2, 0))
        for axes, title in zip(grid, titles, strict=False):
            axes.set_title("\n".join(map(plain_text, title.split("\n"))))
        return figure


def stages(steps: Mapping[str, Mapping[str, float]]) -> Figure:
    """Plot the time of each stage of a training step (page "What it costs").

    One bar for each variant, with its stages stacked. `steps`: {variant: {stage: seconds}}; "step"
    is their sum.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(8, 0.55 * len(steps) + 1.3), layout="constrained")
        axes = figure.subplots()
        names = list(
            dict.fromkeys(
                stage for seconds in steps.values() for stage in seconds if stage != "step"
            )
        )
        for name, colour in zip(names, COLOURS, strict=False):
            lengths = [seconds.get(name, 0.0) for seconds in steps.values()]
            starts = [
                sum(seconds.get(before, 0.0) for before in names[: names.index(name)])
                for seconds in steps.values()
            ]
            axes.barh(
                [way.replace("_", " ") for way in steps],
                lengths,
                left=starts,
                color=colour,
                height=0.62,
                label=name,
            )
        axes.set(xlabel="seconds")
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower center", ncols=len(names), frameon=False)
        return figure


def tiles(rows: Mapping[str, np.ndarray], columns: Sequence[str] = (), size: float = 1.1) -> Figure:
    """Show rows of pictures, [N, 3, S, S] uint8 each, with their names on the left.

    columns: titles of the columns, if any; size: inches per picture.
    """
    gap = 2
    strips = [
        np.concatenate(
            [
                np.pad(
                    np.asarray(image).transpose(1, 2, 0),
                    ((gap, gap), (gap, gap), (0, 0)),
                    constant_values=255,
                )
                for image in images
            ],
            axis=1,
        )
        for images in rows.values()
    ]
    side, count = strips[0].shape[0], strips[0].shape[1] // strips[0].shape[0]
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(
            figsize=(count * size + 1, len(strips) * size + 0.3 * bool(columns)),
            layout="constrained",
        )
        axes = figure.subplots()
        axes.imshow(np.concatenate(strips))
        axes.set_yticks((np.arange(len(strips)) + 0.5) * side, list(rows))
        axes.set_xticks((np.arange(len(columns)) + 0.5) * side, columns)
        axes.tick_params(length=0, labeltop=True, labelbottom=False, top=False)
        axes.spines[:].set_visible(False)
        return figure


def evidence(table: Mapping[str, Sequence[float]], classes: Sequence[str], title: str) -> Figure:
    """Plot how strongly each sign points to each class, as a heat map.

    Each row holds shares [C] that sum to 1, shown as colour and per cent. Rows are sorted by their
    strongest class, then by its share.
    """
    signs = sorted(table, key=lambda sign: (int(np.argmax(table[sign])), -max(table[sign])))
    shares = np.array([table[sign] for sign in signs])
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(6.8, 0.24 * len(signs) + 1), layout="constrained")
        axes = figure.subplots()
        sns.heatmap(
            shares * 100,
            ax=axes,
            annot=np.where(shares >= 0.005, np.char.mod("%.0f", shares * 100), ""),
            fmt="",
            cmap="Blues",
            vmin=0,
            vmax=100 * PALER,
            cbar=False,
            linewidths=0.5,
            linecolor="white",
            xticklabels=classes,
            yticklabels=signs,
            annot_kws={"size": 8, "color": INK},
        )
        axes.tick_params(length=0, labelsize=9, labeltop=True, labelbottom=False, rotation=0)
        axes.set_title(title)
        return figure


def frozen(
    scores: Mapping[str, Mapping[str, Sequence[float]]], limits: Mapping[str, float]
) -> Figure:
    """Plot the macro-F1 scores by which a world was accepted and frozen.

    scores: name -> domain -> one number for each seed, drawn as points with their mean. limits:
    name -> score, drawn as labelled lines.
    """
    domains = list(next(iter(scores.values())))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 0.6 * len(domains) + 1.6), layout="constrained")
        axes = figure.subplots()
        for place, ((name, row), colour) in enumerate(zip(scores.items(), COLOURS, strict=False)):
            for at, domain in enumerate(domains):
                height = at + (place - (len(scores) - 1) / 2) * 0.16
                axes.scatter(
                    row[domain],
                    [height] * len(row[domain]),
                    color=colour,
                    s=14,
                    alpha=0.6,
                    linewidths=0,
                )
                axes.scatter(
                    [np.mean(row[domain])],
                    [height],
                    color=colour,
                    s=60,
                    marker="|",
                    linewidths=2.5,
                    label=name if not at else None,
                )
        for (name, value), side in zip(limits.items(), ("right", "left"), strict=False):
            axes.axvline(value, color=GREY, linewidth=1, linestyle="--")
            axes.text(
                value, -0.62, f" {name} {value} ", ha=side, va="bottom", fontsize=8, color="#555555"
            )
        axes.set(
            yticks=range(len(domains)),
            yticklabels=domains,
            ylim=(len(domains) - 0.5, -0.6),
            xlim=(0, 1.02),
            xlabel="macro-F1, six classes",
        )
        axes.legend(frameon=False, bbox_to_anchor=(1, 0.5), loc="center left")
        return figure


def word_maps(rows: Sequence[Mapping], contrast: float = 0.5) -> Figure:
    """Show each picture beside the attention to single words over it, one row each (chapter 03).

    All maps share one scale, on which 1 is a word's mean over the picture; it runs from 1 -
    contrast to 1 + contrast. A row holds `image` [3, S, S] uint8, `title`, `heats` {word: attention
    [h, w]}, and optionally `caption`, printed below, and `regions` {word: where it is drawn, 0 or
    1, [R, R] with S a multiple of R}, which are outlined. The grid is not smoothed; the picture
    gives the brightness.
    """
    with matplotlib.rc_context(
        {**STYLE, "axes.grid": False, "axes.titlelocation": "center", "axes.titleweight": "normal"}
    ):
        columns = 1 + max(len(row["heats"]) for row in rows)
        height = 2.1 * len(rows) + 0.3
        figure = Figure(figsize=(1.65 * columns + 0.8, height), layout="constrained")
        beneath = 0.3 / height  # room for the last row's caption, which the layout ignores
        figure.get_layout_engine().set(hspace=0.1, rect=(0, beneath, 1, 1 - beneath))
        whole = Rectangle((0, 0), 1, 1, transform=figure.transFigure, alpha=0)
        figure.add_artist(whole)  # without it the saved picture would be cropped above that caption
        grid, scale = (
            figure.subplots(len(rows), columns, squeeze=False),
            ScalarMappable(Normalize(1 - contrast, 1 + contrast), "RdBu_r"),
        )
        for axes in grid.ravel():
            axes.set_axis_off()
        for (first, *others), row in zip(grid, rows, strict=True):
            image = np.asarray(row["image"]).transpose(1, 2, 0) / 255
            first.imshow(image)
            first.set_title(row["title"], weight="bold")
            first.text(
                0,
                -0.04,
                row.get("caption", ""),
                transform=first.transAxes,
                va="top",
                in_layout=False,
                fontsize=9,
            )
            for axes, (word, heat) in zip(others, row["heats"].items(), strict=False):
                relative = np.asarray(heat) / np.asarray(heat).mean()
                tint = scale.to_rgba(
                    np.kron(relative, np.ones((image.shape[0] // len(relative),) * 2))
                )[..., :3]
                axes.imshow(tint * (0.45 + 0.55 * image.mean(-1, keepdims=True)))
                axes.set_title(f"“{word}”", style="italic")
                if word in row.get("regions", {}):
                    region = np.asarray(row["regions"][word], dtype=float)
                    region = np.kron(region, np.ones((len(image) // len(region),) * 2))
                    axes.contour(region, [0.5], colors="black", linewidths=1.2)
        bar = figure.colorbar(
            scale,
            ax=grid,
            fraction=0.025,
            pad=0.01,
            extend="both",
        )
        bar.set_label("attention, 1 = the word's mean", fontsize=8)
        return figure


def change_boxes(changes: Mapping[str, Mapping[str, np.ndarray]], parts: Sequence[str]) -> Figure:
    """Plot how far features of a picture move when one of its causes is exchanged (chapter 03).

    One panel for each domain, one box for each part and exchange. Boxes hold the middle half of the
    pictures, whiskers the middle eight tenths.

    `changes`: {domain: {exchange: [N, P]}}, for N pictures and the P `parts`, as a fraction of the
    distance to an unrelated picture (1, the dashed line).
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(10.5, 3.4), layout="constrained")
        panels = figure.subplots(1, len(changes), sharey=True, squeeze=False)[0]
        for axes, (domain, exchanges) in zip(panels, changes.items(), strict=False):
            long = [
                (part, exchange, value)
                for exchange, table in exchanges.items()
                for row in np.asarray(table)
                for part, value in zip(parts, row, strict=True)
            ]
            part, exchange, value = zip(*long, strict=True)
            sns.boxplot(
                x=part,
                y=value,
                hue=exchange,
                ax=axes,
                palette=[COLOURS[2], COLOURS[4], GREY][: len(exchanges)],
                whis=(10, 90),
                showfliers=False,
                linewidth=0.9,
                width=0.75,
                legend=axes is panels[0],
            )
            axes.axhline(1, color="#333333", linewidth=0.9, linestyle="--", zorder=1)
            axes.set(
                title=f"{domain} (n = {len(value) // len(parts) // len(exchanges)})",
                xlabel="",
                ylabel="",
            )
        panels[0].set(ylabel="change, 1 = another picture", ylim=(0, None))
        handles, labels = panels[0].get_legend_handles_labels()
        panels[0].get_legend().remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return figure


def focus_points(focuses: Sequence[Mapping]) -> Figure:
    """Plot whether attention to a word lies where the word is drawn (chapter 03).

    A faint point for each picture, and the mean with its 95% interval for each group. The line at 1
    is chance.

    `focuses`: one mapping for each picture, with its `group`, such as "photos: events", and up to
    three names with numbers (`perception.word_focus`), which are drawn side by side.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "y"}):
        groups = sorted({row["group"] for row in focuses})
        figure = Figure(figsize=(10, 3.8), layout="constrained")
        axes = figure.subplots()
        long = [
            (row["group"], name, value)
            for row in focuses
            for name, value in row.items()
            if name != "group"
        ]
        group, name, value = zip(*long, strict=True)
        palette = dict(zip(dict.fromkeys(name), [COLOURS[2], GREY, COLOURS[5]], strict=False))
        sns.stripplot(
            x=group,
            y=value,
            hue=name,
            order=groups,
            palette=palette,
            dodge=True,
            jitter=0.15,
            alpha=0.35,
            size=3,
            legend=False,
            ax=axes,
        )
        sns.pointplot(
            x=group,
            y=value,
            hue=name,
            order=groups,
            palette=palette,
            dodge=0.53,
            errorbar=("ci", 95),
            seed=0,
            linestyle="none",
            marker="D",
            markersize=6,
            err_kws={"linewidth": 2.2},
            capsize=0.06,
            ax=axes,
        )
        axes.axhline(1, color="#333333", linewidth=0.9, linestyle="--", zorder=1)
        axes.set_xticks(
            range(len(groups)),
            [f"{each}\n(n = {sum(row['group'] == each for row in focuses)})" for each in groups],
        )
        axes.set(xlabel="", ylabel="attention inside, 1 = chance")
        handles, labels = axes.get_legend_handles_labels()
        axes.get_legend().remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        return figure


def effects(
    changes: Mapping[str, Sequence[float]],
    spread: float,
    xlabel: str = "change of macro-F1 on the target",
) -> Figure:
    """Plot a row of changes for each entry (name -> one number for each seed).

    A dot for each seed, a line for their mean.

    The grey band from -spread to spread is the range of means that the seeds alone can cause; an
    effect inside it is not evidence.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.5, 0.36 * len(changes) + 1.0), layout="constrained")
        axes = figure.subplots()
        axes.axvspan(-spread, spread, color="#ececec", zorder=0)
        axes.axvline(0, color="#777777", linewidth=1)
        for height, values in enumerate(changes.values()):
            axes.plot(
                [np.mean(values)] * 2, [height - 0.28, height + 0.28], color=TARGET, linewidth=2.2
            )
            axes.plot(values, [height] * len(values), "o", color=TARGET, markersize=5, alpha=0.7)
        axes.set(
            yticks=range(len(changes)),
            yticklabels=list(changes),
            xlabel=xlabel,
            ylim=(len(changes) - 0.5, -0.5),
        )
        axes.tick_params(axis="y", length=0)
        return figure


def gain_points(
    gains: Mapping[str, Sequence[float]],
    intervals: Mapping[str, tuple[float, float]],
    asked: Mapping[str, float],
    title: str = "",
) -> Figure:
    """Plot KCDP's lead over each method, in points of macro-F1.

    A dot for each seed, a line for the interval of the mean, and a grey mark at the gain that was
    required (`asked`).
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(7.5, 0.46 * len(gains) + 1.1), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color="#777777", linewidth=1)
        for height, (name, values) in enumerate(gains.items()):
            axes.plot(
                100 * np.array(intervals[name]),
                [height] * 2,
                color=TARGET,
                linewidth=2.2,
                solid_capstyle="butt",
            )
            axes.plot(100 * np.mean(values), height, "s", color=TARGET, markersize=6)
            axes.plot(
                100 * np.array(values),
                [height - 0.22] * len(values),
                "o",
                color=TARGET,
                markersize=3.5,
                alpha=0.55,
            )
            if name in asked:
                axes.plot(
                    100 * asked[name],
                    height,
                    "|",
                    color="#555555",
                    markersize=18,
                    markeredgewidth=1.6,
                )
        axes.set(
            yticks=range(len(gains)),
            yticklabels=[f"over {NAMES.get(name, name)}" for name in gains],
            xlabel="points of macro-F1",
            ylim=(len(gains) - 0.5, -0.6),
            title=title,
        )
        axes.tick_params(axis="y", length=0)
        return figure


def dial_curves(
    curves: Mapping[str, Mapping[float, Mapping[str, float]]],
    methods: Sequence[str],
    limits: tuple[float, float] = (0, 1),
) -> Figure:
    """Plot macro-F1 on the target against the setting of a dial, one panel for each dial.

    Dial -> stop -> method -> score. `limits`: the range of the score axis, within 0 to 1.
    """
    columns = 2 if len(curves) == 4 else 3
    rows = -(-len(curves) // columns)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10.5, 3.0 * rows + 0.5), layout="constrained")
        panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
        for (dial, stops), axes in zip(curves.items(), panels, strict=False):
            for method in methods:
                name = NAMES[method].replace("\n", " ")
                axes.plot(
                    list(stops),
                    [scores[method] for scores in stops.values()],
                    "o-",
                    color=LINES[name],
                    linewidth=2.4 if method == "kcdp" else 1.4,
                    markersize=4,
                    label=name,
                )
            axes.set(
                title=dial.replace("_", " "),
                ylim=limits,
                xlim=(-0.05, 1.05),
                xticks=(0, 0.5, 1),
                xlabel="dial",
            )
        for axes in list(panels):
            axes.set_axis_off()
        for axes in figure.axes[::columns]:
            axes.set_ylabel("macro-F1 on the target")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, frameon=False, loc="outside lower center", ncols=min(len(labels), 5)
        )
        return figure


def heat_maps(tables: Mapping[str, pandas.DataFrame], title: str = "") -> Figure:
    """Show one matrix of macro-F1 for each name.

    A row for each source and a column for each target, with one colour scale. Pairs that were not
    run are blank; domains that occur in no run are left out.
    """
    tables = {
        name: table.dropna(how="all").dropna(axis=1, how="all") for name, table in tables.items()
    }
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        rows, highest = (
            -(-len(tables) // 2),
            max(float(table.max(axis=None)) for table in tables.values()),
        )
        lowest, figure = (
            min(float(table.min(axis=None)) for table in tables.values()),
            Figure(figsize=(8, 3.3 * rows), layout="constrained"),
        )
        panels = figure.subplots(rows, 2, squeeze=False)
        for axes in panels.flat[len(tables) :]:
            axes.remove()
        for axes, (name, table) in zip(panels.flat, tables.items(), strict=False):
            sns.heatmap(
                table,
                ax=axes,
                annot=True,
                fmt=".2f",
                cmap="Blues",
                vmin=lowest,
                vmax=lowest + PALER * (highest - lowest),
                cbar=False,
                square=True,
                linewidths=0.5,
                linecolor="white",
                annot_kws={"size": 9, "color": INK},
            )
            axes.set(title=name, xlabel="target", ylabel="source")
            axes.tick_params(axis="both", length=0)
            axes.set_xticklabels(axes.get_xticklabels(), rotation=35, ha="right")
            axes.set_yticklabels(axes.get_yticklabels(), rotation=0)
        figure.suptitle(title)
        return figure


def by_pictures(
    scores: Mapping[str, Mapping[int, Sequence[float]]], flat: Mapping[str, Sequence[float]]
) -> Figure:
    """Plot macro-F1 against the number of unlabelled target pictures, on a logarithmic scale.

    A line through the means of each method, a dot for each seed. Grey horizontal lines are the
    means of methods that see no target pictures (`flat`).
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.2), layout="constrained")
        axes = figure.subplots()
        for name, by_count in scores.items():
            axes.plot(
                list(by_count),
                [np.mean(values) for values in by_count.values()],
                color=LINES[name],
                linewidth=2,
                label=name,
            )
            for pictures, values in by_count.items():
                axes.plot(
                    [pictures] * len(values),
                    values,
                    "o",
                    color=LINES[name],
                    markersize=4,
                    alpha=0.6,
                )
        for (name, values), style in zip(flat.items(), (":", "--", "-."), strict=False):
            axes.axhline(
                np.mean(values), color="#555555", linewidth=1.2, linestyle=style, label=name
            )
        ticks = sorted({pictures for by_count in scores.values() for pictures in by_count})
        axes.set(
            xscale="log",
            xlabel="unlabelled pictures of the target",
            ylabel="macro-F1 on the target",
        )
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
        return figure


def planes(
    points: Mapping[str, np.ndarray],
    domains: Sequence[str],
    labels: np.ndarray,
    classes: Sequence[str],
) -> Figure:
    """Plot features of N pictures in two dimensions [N, 2], one column for each name.

    Coloured by domain above (one of two names for each picture), by true class below (int64 labels
    [N]).
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(4.6 * len(points), 8.6), layout="constrained")
        panels, domains = figure.subplots(2, len(points), squeeze=False), np.asarray(domains)
        names = list(dict.fromkeys(domains))
        for column, (title, xy) in enumerate(points.items()):
            above, below = panels[:, column]
            for name, colour in zip(names, (SOURCE, TARGET), strict=False):
                above.scatter(
                    *xy[domains == name].T, s=9, color=colour, alpha=0.7, linewidths=0, label=name
                )
            for i, name in enumerate(classes):
                for domain, marker in zip(names, "o^", strict=False):
                    rows = (labels == i) & (domains == domain)
                    below.scatter(
                        *xy[rows].T,
                        s=14,
                        color=COLOURS[i],
                        marker=marker,
                        alpha=0.75,
                        linewidths=0,
                        label=name if marker == "o" else None,
                    )
            above.set(title=title)
            for axes in (above, below):
                axes.set(xticks=(), yticks=())
                sns.despine(ax=axes, left=True, bottom=True)
        for row in panels:
            handles, names = row[0].get_legend_handles_labels()
            row[-1].legend(
                handles,
                names,
                frameon=False,
                loc="center left",
                bbox_to_anchor=(1.01, 0.5),
                markerscale=1.8,
            )
        return figure


def one_space(spaces: Mapping[str, Mapping]) -> Figure:
    """Compare feature spaces, one row each (chapter 02).

    Left: how well a classifier tells the domains apart. Right: how well it predicts the emotion.

    spaces: space -> {"gap": the result of `metrics.proxy_a_distance`, and by domain name, training
    domain first, the entries of `metrics.readability`}. Whiskers are 95% intervals; the dotted line
    is guessing one of the classes.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "x"}):
        figure = Figure(figsize=(10.5, 0.62 * len(spaces) + 1.6), layout="constrained")
        apart, read = figure.subplots(1, 2, sharey=True, width_ratios=[1, 1.25])
        first = next(iter(spaces.values()))
        source, target = (name for name in first if name != "gap")
        rows = np.arange(len(spaces))
        _whiskered(
            apart, rows, [entry["gap"] for entry in spaces.values()], "a_distance", GREY, 0.5
        )
        for name, colour, shift, role in (
            (source, SOURCE, -0.19, "the domain it learnt on"),
            (target, TARGET, 0.19, "the other domain"),
        ):
            about = f"{name}, {role} (n = {first[name]['n']})"
            _whiskered(
                read,
                rows + shift,
                [entry[name] for entry in spaces.values()],
                "macro_f1",
                colour,
                0.36,
                about,
            )
        read.axvline(
            1 / len(first[source]["per_class_recall"]),
            color="#333333",
            linewidth=1,
            linestyle=":",
            label="guessing",
        )
        apart.set(
            title=f"Are {source} and {target} told apart?",
            xlim=(0, 2.3),
            xticks=(0, 0.5, 1, 1.5, 2),
            xlabel=f"proxy A-distance: 0 guessing, 2 always (n = {first['gap']['n']})",
        )
        apart.set_yticks(rows, [textwrap.fill(name, 24) for name in spaces])
        apart.invert_yaxis()
        read.set(
            title=f"Is emotion read, when learnt on {source} alone?",
            xlim=(0, 1.08),
            xticks=(0, 0.2, 0.4, 0.6, 0.8, 1),
            xlabel="macro-F1 of a linear classifier",
        )
        for axes in (apart, read):
            axes.tick_params(axis="y", length=0)
        handles, labels = read.get_legend_handles_labels()
        figure.legend(
            handles[1:] + handles[:1],
            labels[1:] + labels[:1],
            loc="outside lower right",
            ncols=3,
            frameon=False,
        )
        return figure


def _whiskered(
    axes,
    places: np.ndarray,
    entries: Sequence[Mapping],
    metric: str,
    colour,
    height: float,
    label: str | None = None,
) -> None:
    """Draw horizontal bars with their intervals and values, on rows of a shared axis."""
    values = np.array([entry[metric] for entry in entries])
    low, high = np.array([entry[f"{metric}_interval"] for entry in entries]).T
    axes.barh(places, values, color=colour, height=height, label=label)
    # a bootstrap interval need not contain the observed value
    axes.errorbar(
        values,
        places,
        xerr=[np.maximum(values - low, 0), np.maximum(high - values, 0)],
        fmt="none",
        ecolor="#333333",
        elinewidth=1.1,
        capsize=2.5,
    )
    for place, value, top in zip(places, values, high, strict=True):
        axes.text(
            max(value, top) + 0.012 * axes.get_xlim()[1],
            place,
            f"{value:.2f}",
            va="center",
            fontsize=8.5,
        )


def readings(cards: Sequence[Mapping], prompts: Sequence[str]) -> Figure:
    """Show each picture beside its counterfactual texts, do(P), one row each (chapter 04).

    Each prompt stands before the same caption, with the picture's similarity to the text.

    A card holds `image` [3, S, S] uint8, `domain`, `title`, `caption`, `similarities` [C] (cosines,
    -1 to 1) and `probs` [C] (0 to 1, the bars). The best fit has the domain's colour: SOURCE for
    photos, else TARGET.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid": False, "axes.titlelocation": "left"}):
        figure = Figure(figsize=(10, 2.4 * len(cards)), layout="constrained")
        grid, places = (
            figure.subplots(len(cards), 3, squeeze=False, width_ratios=[1.45, 3.7, 2.2]),
            np.arange(len(prompts)),
        )
        for (picture, texts, fits), card in zip(grid, cards, strict=True):
            probs, near = (
                np.asarray(card["probs"], dtype=float),
                np.asarray(card["similarities"], dtype=float),
            )
            picture.imshow(np.asarray(card["image"]).transpose(1, 2, 0))
            picture.set_title(card["title"])
            fits.barh(
                places,
                probs,
                height=0.6,
                color=[
                    _domain_colour(card["domain"]) if i == probs.argmax() else GREY for i in places
                ],
            )
            for place, prompt in enumerate(prompts):
                said = f"{prompt} {plain_caption(card['caption'])}"
                lines = textwrap.fill(said, 60).removeprefix(prompt)
                texts.text(
                    1,
                    place,
                    rf"$\bf{{{prompt.replace(' ', chr(92) + ' ')}}}$" + lines,
                    ha="right",
                    va="center",
                    fontsize=9,
                    linespacing=1.15,
                    in_layout=False,
                )
                fits.text(
                    probs[place] + 0.02,
                    place,
                    f"{probs[place]:.0%}   cos {near[place]:.2f}".replace("-", "−"),
                    va="center",
                    fontsize=9,
                )
            for axes in (texts, fits):
                axes.set(
                    ylim=(len(prompts) - 0.5, -0.5),
                    xlim=(0, 1 if axes is texts else 1.6),
                    xticks=[],
                    yticks=[],
                )
            for axes in (picture, texts):
                axes.set_axis_off()
            fits.spines["bottom"].set_visible(False)
        grid[0][1].set_title("one knowledge, six prompts", loc="right", x=0.94)
        grid[0][2].set_title("which does the picture fit?")
        return figure


def redrawn(rows: Mapping[str, Mapping], classes: Sequence[str]) -> Figure:
    """Show one scene drawn under every emotion, do(emotion), in a double row for each domain.

    The pictures with their captions, and the predictions below (chapter 04).

    rows: domain -> {`images` [C, 3, S, S] uint8, `captions` of length C, `probs` [C, C], where row
    c is the prediction for picture c}. In each column the emotion that was set is shaded; the
    longest bar has the domain's colour: SOURCE for photos, else TARGET.
    """
    with matplotlib.rc_context(
        {**STYLE, "axes.grid": False, "axes.titlelocation": "center", "axes.titlesize": 10}
    ):
        figure = Figure(figsize=(10.5, 3.9 * len(rows)), layout="constrained")
        grid = figure.subplots(
            2 * len(rows), len(classes), squeeze=False, height_ratios=[1.75, 1] * len(rows)
        )
        for (pictures, bars_), (domain, row) in zip(
            grid.reshape(len(rows), 2, -1), rows.items(), strict=True
        ):
            for place, (picture, axes, name) in enumerate(
                zip(pictures, bars_, classes, strict=True)
            ):
                picture.imshow(np.asarray(row["images"][place]).transpose(1, 2, 0))
                picture.set_title(f"do({name})" if domain == next(iter(rows)) else "")
                picture.set(
                    xticks=[],
                    yticks=[],
                    ylim=(1.75 * len(row["images"][place][0]), -0.5),
                    ylabel=domain if not place else "",
                )
                picture.spines[:].set_visible(False)
                picture.text(
                    0.5,
                    0.41,
                    textwrap.fill(plain_caption(row["captions"][place]), 23),
                    transform=picture.transAxes,
                    ha="center",
                    va="top",
                    fontsize=8,
                    linespacing=1.1,
                    in_layout=False,
                )
                probs = np.asarray(row["probs"][place], dtype=float)
                axes.axhspan(place - 0.5, place + 0.5, color="#dddddd", zorder=0)
                axes.barh(
                    classes,
                    probs,
                    height=0.62,
                    color=[
                        _domain_colour(domain) if i == probs.argmax() else GREY
                        for i in range(len(classes))
                    ],
                )
                axes.set(xlim=(0, 1), xticks=(0, 1), ylim=(len(classes) - 0.5, -0.5))
                axes.xaxis.set_major_formatter(PercentFormatter(1))
                axes.tick_params(length=0, labelsize=8.5, labelleft=not place)
            pictures[0].yaxis.label.set(weight="bold", size=11)
        return figure


def followed(pairs: Mapping[str, Mapping[str, np.ndarray]], classes: Sequence[str]) -> Figure:
    """Show whether predictions follow an intervention (chapter 04).

    One matrix for each title: the class that was set (rows) against the predicted one (columns).

    pairs: title -> {name of the rows: [N] class numbers, name of the columns: [N] class numbers}.
    Numbers are pictures, colour is the share of the row; the diagonal, where both agree, is
    outlined.
    """
    with matplotlib.rc_context(
        {**STYLE, "axes.grid": False, "axes.labelsize": 10, "axes.titlesize": 10.5}
    ):
        figure = Figure(figsize=(3.5 * len(pairs), 3.7), layout="constrained")
        for axes, (title, pair) in zip(
            figure.subplots(1, len(pairs), squeeze=False)[0], pairs.items(), strict=True
        ):
            (rows, one), (columns, other) = pair.items()
            counts = confusion_matrix(one, other, labels=range(len(classes)))
            share_matrix(axes, counts, classes, rotation=40)
            for place in range(len(classes)):
                axes.add_patch(
                    Rectangle((place, place), 1, 1, fill=False, edgecolor="#333333", linewidth=0.9)
                )
            axes.set(
                title=(
                    f"{title}\n{np.trace(counts) / counts.sum():.0%} of {counts.sum()} on the "
                    "diagonal"
                ),
                xlabel=columns,
                ylabel=rows,
            )
        return figure


def believed(
    curves: Mapping[str, Sequence[Mapping]],
    in_use: float,
    thresholds: Mapping[float, float],
    shares: Mapping[str, Sequence[float]],
    classes: Sequence[str],
) -> Figure:
    """Compare ways to choose pseudo-labels (chapter 04).

    Left: the accuracy of the pseudo-labels as more of them are used. Right: their classes.

    curves: way -> the result of `metrics.pseudo_label_scores`, from few to all; in_use: the
    labeller's coverage (dots); thresholds: confidence -> coverage, written along the first curve;
    shares: way -> [C], the classes' shares among the pseudo-labels used. Any further name, such as
    the truth, is grey.
    """
    with matplotlib.rc_context({**STYLE, "axes.grid.axis": "y"}):
        figure = Figure(figsize=(10.5, 3.8), layout="constrained")
        (curve, mix), colours = (
            figure.subplots(1, 2),
            dict(zip(curves, (COLOURS[2], TARGET), strict=False)),
        )
        for way, points in curves.items():
            x, y = zip(
                *[(point["coverage"], point["accuracy"]) for point in points if point["coverage"]],
                strict=True,
            )
            curve.plot(x, y, color=colours[way], linewidth=1.8, label=way)
            curve.plot(
                in_use,
                np.interp(in_use, x, y),
                "o",
                color=colours[way],
                markersize=8,
                markeredgecolor="white",
                zorder=3,
            )
            for threshold, coverage in thresholds.items() if way == next(iter(curves)) else ():
                curve.annotate(
                    f"≥ {threshold:g}",
                    (coverage, np.interp(coverage, x, y)),
                    (4, 4),
                    textcoords="offset points",
                    fontsize=8.5,
                    color=colours[way],
                )
                curve.plot(
                    coverage,
                    np.interp(coverage, x, y),
                    "|",
                    color=colours[way],
                    markersize=8,
                    markeredgewidth=1.6,
                )
        curve.set(
            title="How many are right",
            xlabel="pictures with a believed pseudo-label",
            ylabel="right among them",
            xlim=(0, 1.03),
            ylim=(None, 1.015),
        )
        curve.legend(frameon=False, loc="lower left")
        width = 0.8 / len(shares)
        for place, (name, values) in enumerate(shares.items()):
            mix.bar(
                np.arange(len(classes)) + (place - (len(shares) - 1) / 2) * width,
                values,
                width=0.92 * width,
                color=colours.get(name, GREY),
                label=name,
            )
        mix.set(
            title="Which classes they are",
            xticks=range(len(classes)),
            xticklabels=classes,
            ylabel="share among them",
        )
        mix.tick_params(axis="x", length=0)
        mix.legend(frameon=False)
        for axis in (curve.xaxis, curve.yaxis, mix.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        return figure


def reliability(panels: Mapping[str, Mapping]) -> Figure:
    """Plot confidence against accuracy in bins, above the bins' counts (chapter 04).

    panels: title -> the result of `metrics.calibration`, one panel each, the source's first. On the
    dashed diagonal confidence equals accuracy; below it the model is overconfident. Points are the
    bins' means; the bars below show their counts.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.8 * len(panels), 4.4), layout="constrained")
        figure.get_layout_engine().set(wspace=0.06)
        grid = figure.subplots(
            2, len(panels), squeeze=False, sharex=True, sharey="row", height_ratios=[3, 1]
        )
        for (fit, many), (title, entry), colour in zip(
            grid.T, panels.items(), (SOURCE, TARGET), strict=False
        ):
            fit.plot([0, 1], [0, 1], color="#777777", linewidth=1, linestyle="--")
            fit.plot(
                entry["confidence"],
                entry["accuracy"],
                "o-",
                color=colour,
                linewidth=1.6,
                markersize=6,
            )
            fit.set(
                title=f"{title}\nexpected calibration error {entry['error']:.3f}",
                xlim=(0, 1),
                ylim=(0, 1.02),
                xticks=np.arange(0, 1.1, 0.2),
            )
            many.bar(entry["middle"], entry["count"], width=0.09, color=colour)
            for middle, count in zip(entry["middle"], entry["count"], strict=True):
                many.text(middle, count, count, ha="center", va="bottom", fontsize=8.5)
            many.set(xlabel="confidence")
            many.margins(y=0.3)
            for axis in (fit.xaxis, fit.yaxis):
                axis.set_major_formatter(PercentFormatter(1))
        grid[0][0].set_ylabel("right")
        grid[1][0].set_ylabel("pictures")
        return figure


def _domain_colour(domain: str) -> tuple[float, ...]:
    """Return the colour of a domain's predictions."""
    return SOURCE if domain == "photos" else TARGET
