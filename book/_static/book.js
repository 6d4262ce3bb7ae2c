// What unfolds the pages below one in the sidebar is an arrow; a screen reader needs a word.
addEventListener("DOMContentLoaded", () => {
  for (const arrow of document.querySelectorAll("li.has-children > details > summary")) {
    arrow.setAttribute(
      "aria-label",
      `Pages below ${arrow.closest("li").querySelector("a").textContent.trim()}`,
    );
  }
});
// An equation that is wider than the page scrolls; a keyboard must be able to scroll it, too.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const formula of document.querySelectorAll("mjx-container[display]")) {
    if (formula.scrollWidth > formula.clientWidth) formula.tabIndex = 0;
  }
});
// On a phone a figure keeps letters that can be read, unless it is a small one.
addEventListener("load", () => {
  for (const image of document.querySelectorAll(".bd-article figure img")) {
    image.closest("figure").classList.toggle("wide", image.naturalWidth > 500);
  }
});
