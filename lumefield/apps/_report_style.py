"""Style and script of ``report.html``; everything is inline, so that the file opens from disk."""

CSS = """
:root { color-scheme: light dark; --bg:#faf9f6; --card:#ffffff; --ink:#1c2026; --soft:#667080;
  --line:#e3e0d8; --train:#2f6f9f; --held:#d9662b; --grid:#ece9e1; --bar:#2f6f9f22; }
@media (prefers-color-scheme: dark) { :root { --bg:#13161a; --card:#1b1f25; --ink:#e9e6df;
  --soft:#98a1ae; --line:#2c323a; --train:#6fb1dd; --held:#f39355; --grid:#262b32;
  --bar:#6fb1dd2e; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--bg); color:var(--ink); line-height:1.5;
  font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
  font-variant-numeric:tabular-nums; }
main { max-width:1180px; margin:0 auto; padding:28px 20px 64px; }
header p { color:var(--soft); margin:.2em 0 0; }
h1 { font-size:1.7rem; margin:0; letter-spacing:-.02em; overflow-wrap:anywhere; }
h2 { font-size:1.15rem; margin:44px 0 12px; letter-spacing:-.01em; }
.hint { color:var(--soft); font-size:.88rem; margin:-6px 0 14px; }
.cards { display:grid; grid-template-columns:repeat(auto-fit,minmax(150px,1fr)); gap:12px;
  margin-top:22px; }
.card { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:12px 16px; }
.card b { display:block; font-size:1.5rem; font-weight:650; letter-spacing:-.02em;
  line-height:1.25; }
.card b small { font-size:.55em; font-weight:500; color:var(--soft); margin-left:.25em; }
.card span { color:var(--soft); font-size:.82rem; }
.view { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:12px; margin-bottom:14px; }
.view h3 { margin:0 0 8px; font-size:.95rem; font-weight:600; display:flex; flex-wrap:wrap;
  gap:4px 14px; align-items:baseline; overflow-wrap:anywhere; }
.view h3 span { color:var(--soft); font-weight:400; font-size:.86rem; }
.trio { display:grid; grid-template-columns:repeat(3,1fr); gap:8px; }
figure { margin:0; }
figure img { width:100%; display:block; border-radius:6px; }
figcaption { color:var(--soft); font-size:.78rem; padding-top:3px; }
.wipe { position:relative; --x:0%; }
.wipe .over { position:absolute; inset:0; clip-path:inset(0 calc(100% - var(--x)) 0 0); }
.wipe::after { content:""; position:absolute; top:0; bottom:0; left:var(--x); width:2px;
  background:#fff; box-shadow:0 0 3px #000a; opacity:var(--on,0); pointer-events:none; }
.wipe input { position:absolute; inset:0; width:100%; height:100%; margin:0; opacity:0;
  cursor:ew-resize; touch-action:pan-y; }
.wipe:focus-within { outline:2px solid var(--train); outline-offset:2px; border-radius:6px; }
.legend { display:flex; gap:10px; align-items:center; font-size:.82rem; color:var(--soft);
  margin-bottom:12px; flex-wrap:wrap; }
.ramp { width:180px; height:10px; border-radius:5px; }
.pair { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(320px,100%),1fr));
  gap:14px; align-items:start; }
.plot { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:12px 14px; min-width:0; }
.plot h3 { margin:0 0 4px; font-size:.9rem; font-weight:600; }
.plot svg { width:100%; height:auto; display:block; }
svg text { fill:var(--soft); font-size:12px; font-family:inherit; }
svg .grid { stroke:var(--grid); } svg .axis { stroke:var(--line); }
svg .raw { fill:none; stroke:var(--train); stroke-opacity:.28; }
svg .smooth { fill:none; stroke:var(--train); stroke-width:2; stroke-linejoin:round; }
svg .mark { stroke:var(--held); stroke-width:1.5; stroke-dasharray:5 4; }
svg .marktext { fill:var(--held); }
svg .cam { fill:none; stroke:var(--train); stroke-width:1.2; stroke-linejoin:round; }
svg .cam.held { stroke:var(--held); stroke-width:1.8; }
.key i { display:inline-block; width:10px; height:10px; border-radius:3px; margin-right:5px; }
table { border-collapse:collapse; width:100%; font-size:.88rem; }
td, th { text-align:left; padding:5px 10px 5px 0; border-bottom:1px solid var(--line);
  vertical-align:top; overflow-wrap:anywhere; font-weight:400; }
th { color:var(--soft); } td.n, th.n { text-align:right; white-space:nowrap; padding-left:10px; }
tr.total td { font-weight:650; border-bottom:0; }
td.meter { width:34%; padding-right:0; } td.meter div { height:10px; border-radius:5px;
  background:var(--train); margin-top:6px; min-width:1px; }
.panel { background:var(--card); border:1px solid var(--line); border-radius:12px;
  padding:8px 16px; }
details summary { cursor:pointer; padding:6px 0; font-weight:600; font-size:.92rem; }
footer { margin-top:48px; color:var(--soft); font-size:.82rem; }
@media (max-width:640px) { main { padding:20px 12px 48px; } .trio { grid-template-columns:1fr; }
  .card { padding:10px 12px; } .card b { font-size:1.25rem; }
  .cards { grid-template-columns:repeat(2,1fr); } }
@media print { .wipe input { display:none; } .view, .plot { break-inside:avoid; } }
"""

SCRIPT = """
for (const view of document.querySelectorAll('.view')) {
  const wipe = view.querySelector('.wipe'), over = wipe.querySelector('.over');
  over.src = view.querySelector('.truth').src;
  wipe.querySelector('input').addEventListener('input', e => {
    wipe.style.setProperty('--x', e.target.value + '%');
    wipe.style.setProperty('--on', e.target.value > 0 && e.target.value < 100 ? 1 : 0);
  });
}
"""
