"""What stands around the sections of a report: style, script, the frame.  Nothing is fetched from anywhere."""

from __future__ import annotations

from ...frontier.view import format_palette

FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{mark}
<meta name="safekd-runs" content="{runs}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
<div id="tip" role="status" aria-live="polite" hidden></div>
<script>{script}</script>
</body>
</html>
"""

_RULES = """
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:16px}
h1{font-size:1.5rem;line-height:1.25;margin:0 0 8px}
.apart{margin-top:40px;padding-top:16px;border-top:1px solid var(--soft)}h2{font-size:1.2rem;margin:32px 0 4px}
h3{font-size:1rem;margin:16px 0 4px}
h1,h2,h3,p,li,figcaption,code{overflow-wrap:anywhere}
p{margin:0 0 10px;max-width:75ch}
.soft,caption{color:var(--soft)}.good,.bad{white-space:nowrap}.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
.verdict{font-size:1.2rem;line-height:1.4;border-left:4px solid var(--c0);padding-left:12px;max-width:65ch}
ul{margin:0 0 10px;padding-left:20px}
nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:4px 16px}
a{color:var(--c0)}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:16px 24px;align-items:start}
.pair{display:grid;grid-template-columns:minmax(0,1fr);gap:16px 24px;align-items:start}
@media (min-width:800px){.pair{grid-template-columns:minmax(0,460px) minmax(0,1fr)}}
.grid>*,.pair>*{min-width:0}
figure{margin:0;max-width:520px;break-inside:avoid}
figcaption{font-weight:600;margin-bottom:4px}
figure>svg{width:100%;height:auto;display:block;overflow:visible}
svg text{fill:var(--ink);font:11.5px system-ui,sans-serif}svg text.soft{fill:var(--soft)}svg text.name{font-weight:600}
figcaption .soft{font-weight:400}.label{paint-order:stroke;stroke:var(--paper);stroke-width:4px}
.tick{stroke:var(--grid)}.guide{stroke:var(--soft);stroke-dasharray:5 3;stroke-width:1.2}
.l{fill:none;stroke:var(--k);stroke-width:1.6}.thick{stroke-width:3}
.m{fill:var(--k);stroke:var(--paper);stroke-width:.8}.box,.bar{fill:var(--k);fill-opacity:.3;stroke:var(--k)}
.k0{--k:var(--c0)}.k1{--k:var(--c1)}.k2{--k:var(--c2)}.k3{--k:var(--c3)}
.k4{--k:var(--c4)}.k5{--k:var(--c5)}.k6{--k:var(--c6)}
.p{cursor:pointer;outline:none}.hit{fill:transparent;stroke:none}.p:focus .hit,
.p:hover .hit{stroke:var(--ink);stroke-width:1.4}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;padding:0;margin:4px 0;font-size:13px}
.swatch{width:18px;height:12px;vertical-align:-1px}
details{margin:6px 0}summary{cursor:pointer;color:var(--c0)}
.wide{overflow-x:auto;max-width:100%;margin:4px 0 10px}
table{border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:13px;padding-bottom:2px}
th,td{padding:3px 10px 3px 0;border-bottom:1px solid var(--grid);text-align:left;vertical-align:top;
max-width:44ch;overflow-wrap:break-word}
.long{min-width:min(34ch,80vw)}
thead th{font-weight:600;border-bottom-color:var(--soft)}tbody th{font-weight:400}
pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:12.5px}code{font-size:.92em}
:focus-visible{outline:2px solid var(--c0);outline-offset:2px}.p:focus-visible{outline:none}
#tip{position:fixed;z-index:1;max-width:min(340px,90vw);background:var(--card);border:1px solid var(--soft);
border-radius:6px;padding:6px 10px;font-size:13px;overflow-wrap:anywhere;pointer-events:none}
@media (max-width:600px){main{padding:12px}.verdict{font-size:1.05rem}h2{margin-top:24px}}
@media print{#tip,nav{display:none}main{max-width:none;padding:0}.wide{overflow:visible}tr{break-inside:avoid}
h2,h3{break-after:avoid}details::details-content{content-visibility:visible;display:block;height:auto}}
""".strip()
STYLE = f"{format_palette()}\n{_RULES}"

# without it the page reads the same: titles of points and the tables hold every number
SCRIPT = """
(() => {
const tip = document.getElementById("tip"), points = [...document.querySelectorAll(".p")];
let pinned = null;
points.forEach(p => p.querySelector("title")?.remove());
function show(p) {
  tip.textContent = p.getAttribute("aria-label");
  tip.hidden = false;
  const box = p.querySelector(".hit").getBoundingClientRect(), w = tip.offsetWidth, h = tip.offsetHeight;
  const x = box.right + 6 + w < innerWidth ? box.right + 6 : box.left - w - 6;
  tip.style.left = Math.max(4, Math.min(x, innerWidth - w - 4)) + "px";
  tip.style.top = Math.max(4, box.top - h - 4) + "px";
}
const hide = () => { pinned = null; tip.hidden = true; };
const back = () => pinned ? show(pinned) : hide();
points.forEach(p => {
  p.addEventListener("pointerenter", () => show(p));
  p.addEventListener("pointerleave", back);
  p.addEventListener("focus", () => show(p));
  p.addEventListener("blur", back);
  p.addEventListener("click", e => { e.stopPropagation(); pinned = p; show(p); });
  p.addEventListener("keydown", e => {
    const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[e.key];
    if (!step) return;
    e.preventDefault();
    const group = [...p.parentNode.querySelectorAll(".p")];
    group[(group.indexOf(p) + step + group.length) % group.length].focus();
  });
});
document.addEventListener("click", hide);
document.addEventListener("keydown", e => { if (e.key === "Escape") hide(); });
addEventListener("scroll", () => { if (!tip.hidden && !pinned) hide(); }, {passive: true});
})();
""".strip()
