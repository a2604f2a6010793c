"""The style sheet of reports: light and dark, from a phone's screen to paper."""

STYLE = """
:root{color-scheme:light dark;--bg:#f5f6f8;--card:#fff;--ink:#1b2029;--muted:#626b78;--line:#dde1e6;--front:#0072b2;
--missed:#c05000;--notice:#fff3e4;--series0:#0072b2;--series1:#b87f00;--series2:#009e73;--series3:#b8578a;
--series4:#2f9fdc;--series5:#d55e00;--series6:#7a6a00;--series7:#5b3a8f;--conv:#0072b2;--separable:#009e73;
--inverted:#d98f00;--max:#d55e00;--average:#b8578a;--skip:#7d8590;--matrix:#7a6a00;--other:#7a5fa8}
@media (prefers-color-scheme:dark){:root{--bg:#101317;--card:#191d23;--ink:#e7eaef;--muted:#9aa3af;--line:#2e343d;
--front:#56b4e9;--missed:#ff9a52;--notice:#35251a;--series0:#56b4e9;--series1:#f0b429;--series2:#2cc79a;
--series3:#e39fc4;--series4:#8fd0f5;--series5:#ff8a45;--series6:#d9c94a;--series7:#a98be0;--conv:#56b4e9;
--separable:#2cc79a;--inverted:#f0b429;--max:#ff8a45;--average:#e39fc4;--skip:#9aa3af;--matrix:#d9c94a;--other:#b79ae6}}
*{box-sizing:border-box}
html{scroll-behavior:smooth;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:74rem;padding:1.5rem 1.25rem 3rem;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:0 0 .75rem}
h3{font-size:1rem;margin:0 0 .25rem}
p{margin:0 0 .75rem;max-width:50rem;overflow-wrap:anywhere}
a{color:var(--front)}
a:focus-visible,summary:focus-visible,[tabindex]:focus-visible{outline:2px solid var(--front);outline-offset:2px}
header nav{display:flex;flex-wrap:wrap;gap:.25rem 1.1rem;margin:.5rem 0 1.25rem}
nav a{text-decoration:none}
nav a:hover{text-decoration:underline}
section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:1.25rem;margin:0 0 1.25rem}
.muted,figcaption,caption,.note,small{color:var(--muted)}
.lead{font-size:1.08rem}
.notice{background:var(--notice);border-left:4px solid var(--missed);padding:.75rem 1rem;border-radius:4px;
max-width:none}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(7.5rem,1fr));gap:.75rem;margin:0 0 1.25rem}
.tiles div{border:1px solid var(--line);border-radius:8px;padding:.6rem .8rem;display:flex;flex-direction:column}
.tiles dd{margin:0;font-size:1.45rem;font-weight:600;font-variant-numeric:tabular-nums;line-height:1.25}
.tiles dt{color:var(--muted);font-size:.85rem}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));gap:.5rem 1.5rem;margin:0 0 1rem}
.facts div{min-width:0}
.facts dt{color:var(--muted);font-size:.85rem}
.facts dd{margin:0;overflow-wrap:anywhere}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,25rem),1fr));gap:1.25rem}
figure{margin:0;min-width:0;max-width:36rem}
figcaption{font-size:.85rem;overflow-wrap:anywhere}
.plot{width:100%;height:auto;display:block}
.plot *{stroke-linejoin:round;stroke-linecap:butt}
.scroll{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;width:100%;font-variant-numeric:tabular-nums}
caption{text-align:left;font-size:.85rem;padding:0 0 .4rem}
th,td{padding:.38rem .7rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
thead th{border-bottom:2px solid var(--line);vertical-align:bottom}
th small{display:block;font-weight:400}
td.n,th.n{text-align:right}
td.n{white-space:nowrap}
.arch{font:.8rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere;min-width:14rem}
.whole{white-space:nowrap}
.best{font-weight:700}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,31rem),1fr));gap:1rem;margin:1rem 0 0}
article{border:1px solid var(--line);border-radius:8px;padding:.9rem 1rem;min-width:0;scroll-margin-top:1rem}
article:target{border-color:var(--front);box-shadow:0 0 0 1px var(--front)}
article p{margin:0 0 .5rem;font-size:.9rem}
.cell{display:block;height:auto;max-width:100%;margin:.25rem 0 .6rem}
.cell rect{stroke:var(--c);stroke-width:1.4;fill:var(--c);fill-opacity:.12}
.cell .t1 rect{fill-opacity:.28}.cell .t2 rect{fill-opacity:.45}.cell .t3 rect{fill-opacity:.62}
.cell text{font:10.5px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;
text-anchor:middle;fill:var(--ink)}
.cell .edge{fill:none;stroke:var(--muted);stroke-width:1.3;stroke-linejoin:round}
.cell .head{fill:var(--muted)}
.op-convolution{--c:var(--conv)}.op-separable{--c:var(--separable)}.op-inverted{--c:var(--inverted)}
.op-max{--c:var(--max)}.op-average{--c:var(--average)}.op-skip,.op-end{--c:var(--skip)}.op-matrix{--c:var(--matrix)}
.op-other{--c:var(--other)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.1rem;margin:.75rem 0 0;padding:0;font-size:.85rem}
.swatch{display:inline-block;width:.85em;height:.85em;border-radius:3px;margin-right:.4em;background:var(--c);vertical-align:-.08em}
details{margin:.75rem 0 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--bg);border:1px solid var(--line);border-radius:6px;padding:.7rem .9rem;overflow-x:auto;
font:.82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:.4rem 0 .9rem}
@media (max-width:40rem){body{padding:1rem .6rem 2rem}section{padding:.9rem .8rem}h1{font-size:1.4rem}
.scroll{overflow-x:visible}.scroll table,.scroll tbody,.scroll tr,.scroll caption{display:block}
.scroll thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
.scroll tr{border:1px solid var(--line);border-radius:8px;padding:.5rem .7rem;margin:0 0 .6rem}
.scroll tbody th{display:block;border:0;padding:0 0 .25rem}
.scroll td{display:flex;gap:.5rem;justify-content:space-between;align-items:baseline;border:0;padding:.12rem 0;
text-align:right;white-space:normal}
.scroll td::before,.scroll tbody th::before{content:attr(data-label);color:var(--muted);font-size:.85rem;
font-weight:400;text-align:left;flex:none;max-width:50%;margin-right:.5rem}
.scroll td>div{min-width:0;overflow-wrap:anywhere}.scroll td .arch{min-width:0}}
@media print{body{max-width:none;background:#fff}section{break-inside:auto}article,figure{break-inside:avoid}}
"""
