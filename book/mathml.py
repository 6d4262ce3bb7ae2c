"""Set the formulas of the pages as MathML, which a browser shows without a script.

docutils knows most of TeX. `SPELLED` rewrites what it does not know or would set wrongly, and
`MENDED` what a browser would: brackets that would stretch, and function names without a space.
"""

import re

from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml

from kcdp_lib.errors import KCDPError

WIDE = 36  # letters of words from which a formula is set smaller
GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"  # in braces, with braces two deep inside
SPELLED = (
    (r"\\operatorname\*\{arg\\,max\}_(\w)", r"\\underset{\1}{\\mathrm{arg\\,max}}"),
    (r"\\operatorname\{top\\text\{-\}2\}", r"\\text{top-2}"),
    (rf"\\operatorname\{{(\w+)\}}_{GROUP}", r"\\mathrm{\1}_{\2}\\,"),
    (r"\\operatorname\{(\w+)\}(?= ?\\?\w)", r"\\mathrm{\1}\\,"),
    (r"\\operatorname\{(\w+)\}", r"\\mathrm{\1}"),
    (rf"\\underbrace{GROUP}_{GROUP}", r"\\underset{\2}{\\underbrace{\1}}"),
    (r"\\(hat|tilde|bar) (\\ell|\w)_", r"\\\1{\2}{}_"),
    (r"\\tfrac(\d)(\d)", r"\\tfrac{\1}{\2}"),
    (r"\\big(?=[(\[])", r"\\bigl"),
    (r"\\big(?=[)\]])", r"\\bigr"),
    (r"\\Big/", r"\\Bigl/"),
    (r"\\dots\b", r"\\ldots"),
    (r"(?<=\w)'", r"^{\\prime}"),
)
MENDED = (
    (r' xmlns="[^"]*"|\n *', ""),
    (r'<mo(?: class="mathopen")?>([{}‖])</mo>', r'<mo stretchy="false">\1</mo>'),
    (r"(?<=&ApplyFunction;</mo>)(?!<mo|<mspace)", r'<mspace width="0.17em"></mspace>'),
    (r"\\([{}])", r"\1"),
)


def mathml(tex: str, display: bool = False) -> str:
    """Return a formula as an element `math`; KCDPError if it uses what docutils does not know."""
    tex = rewritten(tex, SPELLED)
    try:
        element = rewritten(tex2mathml(tex, as_block=display), MENDED)
    except MathError as error:
        raise KCDPError(
            f"The slides cannot show {tex!r} ({error}): write it in other commands, or add them to "
            "SPELLED in book/mathml.py."
        ) from None
    if len("".join(re.findall("<mtext>([^<]*)", element))) > WIDE:
        element = element.replace("<math", '<math class="wide"', 1)
    return element


def rewritten(text: str, rules: tuple[tuple[str, str], ...]) -> str:
    """Replace what each rule's pattern matches, one rule after the other."""
    for pattern, replacement in rules:
        text = re.sub(pattern, replacement, text)
    return text
