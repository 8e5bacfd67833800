"""What stands around the drawing in a frontier's page: style, script, the frame.  Nothing is fetched from anywhere."""

from ._page_palette import format_palette

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="soft">{lead}</p>
{drawing}
<div id="tip" role="status" aria-live="polite" hidden></div>
<details>
<summary>All rows, every number</summary>
<div class="wide">
{table}
</div>
</details>
</main>
<script>{script}</script>
</body>
</html>
"""

_RULES = """
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.45 system-ui,sans-serif}
main{max-width:860px;margin:0 auto;padding:16px}
h1{font-size:1.3rem;margin:0 0 4px;overflow-wrap:anywhere}
.soft{color:var(--soft);margin:0 0 8px}
svg.chart{width:100%;height:auto;display:block}
svg text{fill:var(--ink);font-family:system-ui,sans-serif}
.p{cursor:pointer;outline:none}.p .hit{fill:transparent}
.halo{fill:none;stroke:none}.p.on .halo,.p:focus-visible .halo{stroke:var(--ink);stroke-width:1.2}
#tip{position:fixed;z-index:1;max-width:min(360px,90vw);max-height:80vh;overflow:auto;background:var(--card);
border:1px solid var(--soft);border-radius:6px;padding:8px 10px;font-size:12.5px;box-shadow:0 3px 14px #0004;
pointer-events:none}
#tip dl{display:grid;grid-template-columns:auto auto;gap:0 12px;margin:0}
#tip dt{color:var(--soft)}#tip dd{margin:0;text-align:right;overflow-wrap:anywhere;font-variant-numeric:tabular-nums}
details{margin-top:12px}summary{cursor:pointer}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:12px;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:2px 8px;border-bottom:1px solid var(--grid);text-align:right}
th{text-align:left;font-weight:600}tr.on td{background:var(--gap)}
@media print{#tip{display:none}}
""".strip()
STYLE = f"{format_palette()}\n{_RULES}"

# rows are read from the table of the page, so that no number stands in the file twice
SCRIPT = """
(() => {
const tip = document.getElementById("tip"), heads = [...document.querySelectorAll("th")];
const points = [...document.querySelectorAll(".p")], stops = points.filter(p => p.hasAttribute("tabindex"));
let pinned = null;
points.forEach(p => p.querySelector("title")?.remove());
const short = text => isNaN(text) ? text : String(+(+text).toPrecision(6));
const light = row => document.querySelectorAll("[data-row]").forEach(e =>
  e.classList.toggle("on", row !== null && e.dataset.row === row));
function show(point) {
  const row = point.dataset.row, list = document.createElement("dl");
  const cells = document.querySelector('tr[data-row="' + row + '"]').children;
  heads.forEach((head, i) => {
    const text = cells[i].textContent;
    if (!text) return;
    list.append(Object.assign(document.createElement("dt"), {textContent: head.textContent}),
      Object.assign(document.createElement("dd"), {textContent: "x" in head.dataset ? short(text) : text}));
  });
  tip.replaceChildren(list);
  tip.hidden = false;
  const box = point.getBoundingClientRect(), w = tip.offsetWidth, h = tip.offsetHeight;
  tip.style.left = Math.max(4, box.right + 8 + w < innerWidth ? box.right + 8 : box.left - w - 8) + "px";
  tip.style.top = Math.max(4, Math.min(box.top - h / 3, innerHeight - h - 4)) + "px";
  light(row);
}
function hide() { pinned = null; tip.hidden = true; light(null); }
const back = () => pinned ? show(pinned) : hide();
points.forEach(p => {
  p.addEventListener("pointerenter", () => show(p));
  p.addEventListener("pointerleave", back);
  p.addEventListener("focus", () => show(p));
  p.addEventListener("blur", back);
  p.addEventListener("click", e => { e.stopPropagation(); pinned = pinned === p ? null : p; show(p); });
  p.addEventListener("keydown", e => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[e.key];
    if (step) { e.preventDefault(); stops[(stops.indexOf(p) + step + stops.length) % stops.length]?.focus(); }
    if (e.key === "Enter" || e.key === " ") { e.preventDefault(); pinned = pinned === p ? null : p; }
  });
});
document.addEventListener("click", hide);
document.addEventListener("keydown", e => { if (e.key === "Escape") hide(); });
addEventListener("scroll", () => { if (!tip.hidden) hide(); }, {passive: true});
})();
""".strip()
