"""How the page looks: gradio's plain theme with system fonts (nothing is loaded from elsewhere) and a little CSS."""

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "NanumSquareRound", "Noto Sans KR", "sans-serif")

THEME = gr.themes.Base(
    primary_hue="teal",
    neutral_hue="slate",
    radius_size="lg",
    font=FONTS,
    font_mono=("ui-monospace", "Consolas", "monospace"),
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    body_text_color_subdued="*neutral_500",  # 4.5 to 1 on the page
    body_text_color_subdued_dark="*neutral_400",
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600",
    button_primary_text_color="white",
)

CSS = """
.gradio-container { max-width: 1120px !important; margin: 0 auto !important; padding: 12px 20px 48px !important; }
.lead h1 { font-size: 1.9rem; margin: 14px 0 2px; letter-spacing: -0.01em; }
.lead p { color: var(--body-text-color-subdued); font-size: 1.05rem; margin: 0 0 4px; }
.step h2 { font-size: 1.1rem; margin: 6px 0 2px; }
.small, .small p, .note { color: var(--body-text-color-subdued); font-size: 0.86rem; }
.note { margin: 8px 2px 0; }
.examples { align-items: center; gap: 8px; justify-content: flex-start; }
.examples > * { flex: 0 0 auto !important; min-width: 0 !important; width: auto !important; }
.html-container { padding: 0 !important; }
#status:not(:has(.say)), #results:not(:has(figure)) { display: none; }
.label-wrap > span:first-child { text-align: left; }
#another, #speak, #voice-video { width: auto; flex-grow: 0; align-self: flex-start; padding-inline: 16px; }
#after button { align-self: center; }
#go { font-size: 1.15rem; min-height: 56px; }

.frame { position: relative; border-radius: 12px; overflow: hidden; line-height: 0; max-width: fit-content; }
.frame img { max-width: 100%; max-height: 420px; }
.frame .face { position: absolute; border: 2px solid #fff; border-radius: 10px; background: transparent;
  cursor: pointer; padding: 0; box-shadow: 0 0 0 1px #0008, inset 0 0 0 1px #0006; transition: background 0.15s; }
.frame .face:hover, .frame .face:focus-visible { background: #14b8a633; outline: none; border-color: #5eead4; }
.frame .face b { position: absolute; left: -2px; top: -2px; min-width: 24px; line-height: 24px; font-size: 14px;
  text-align: center; border-radius: 9px 0 9px 0; background: #fff; color: #0f172a; }
.frame .face.picked { border: 3px solid #2dd4bf; background: #14b8a626; }
.frame .face.picked b { background: #2dd4bf; }

.say { padding: 12px 14px; border-radius: 12px; background: var(--background-fill-secondary); }
.say p { margin: 0; }
.say.bad { background: #fef2f2; color: #991b1b; border: 1px solid #fecaca; }
.dark .say.bad { background: #450a0a; color: #fecaca; border-color: #7f1d1d; }
.bar { height: 8px; border-radius: 4px; background: var(--border-color-primary); margin-top: 10px; overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--color-accent); transition: width 0.3s linear; }

.compare { display: grid; gap: 16px; grid-template-columns: repeat(2, minmax(0, 1fr)); }
.compare.n3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.compare figure { margin: 0; }
.compare figcaption { display: flex; justify-content: space-between; align-items: center; height: 32px;
  font-weight: 600; }
.compare figcaption a { font-weight: 500; color: var(--link-text-color); margin: 0; }
.compare video, .compare img { width: 100%; max-height: 480px; border-radius: 12px; background: #000; display: block;
  object-fit: contain; }
.compare .unplayable { display: none; }
.compare .broken .unplayable { display: block; }
.middle { text-align: center; margin: 14px 0; }
.both { border: 1px solid var(--border-color-primary); border-radius: 999px; padding: 10px 26px; font-weight: 600;
  background: var(--background-fill-primary); color: var(--body-text-color); cursor: pointer; }
.both:hover { border-color: var(--color-accent); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: 6px 16px; margin: 0; }
.facts dt { font-weight: 600; }
.facts dd { margin: 0; }
.facts p { margin: 0 0 4px; overflow-wrap: anywhere; }
.curve { margin: 4px 0; max-width: 340px; }
.curve svg { display: block; width: 100%; height: auto; }
.curve polyline { fill: none; stroke: var(--color-accent); stroke-width: 2; }
.curve line { stroke: var(--border-color-primary); }
.curve circle { fill: var(--color-accent); }
.curve figcaption { display: flex; justify-content: space-between; font-size: 0.75rem;
  color: var(--body-text-color-subdued); }
.say.quiet { color: var(--body-text-color-subdued); }

@media (max-width: 640px) {
  .lead h1 { font-size: 1.5rem; }
  .compare, .compare.n3, .facts { grid-template-columns: 1fr; }
  .compare figure:first-child { order: 1; }
  #nudge { min-width: 100% !important; }
}
"""

# Gradio moves the rules of @media below its content; what is around that needs a style of its own.
HEAD = """
<style>
@media (max-width: 640px) {
  .gradio-container { padding: 6px 14px 32px !important; }
  .gradio-container > .main { padding: 0 !important; }
}
</style>
"""

# The face buttons of the preview: a click tells the server which point was meant.
PICK_JS = """
element.addEventListener('click', (event) => {
  const face = event.target.closest('[data-face]');
  if (face) trigger('pick', {face: face.dataset.face});
});
"""

# Original and results start together; only the first result is heard. The original, often longer, ends with it.
PLAY_JS = """
watch('value', () => {
  if (element.querySelector('video')) element.scrollIntoView({behavior: 'smooth', block: 'nearest'});
});
element.addEventListener('click', (event) => {
  const button = event.target.closest('.both');
  if (!button) return;
  const videos = [...element.querySelectorAll('video')];
  const shown = () => videos.some((v) => !v.paused);
  const name = () => { button.textContent = shown() ? '❚❚ ' + button.dataset.pause : '▶ ' + button.dataset.play; };
  for (const v of videos) v.onplay = v.onpause = v.onended = name;
  if (shown()) return videos.forEach((v) => v.pause());
  const result = element.querySelector('figure:nth-child(2) video');
  result.muted = false;
  videos.forEach((v) => { v.currentTime = 0; if (v !== result) v.muted = true; });
  videos.forEach((v) => v.play().catch(() => {}));
  result.onpause = () => { videos.forEach((v) => v.pause()); name(); };
});
"""

# The job's link in the address bar, so that a reload finds it.
LINK_JS = """
(id) => {
  const url = new URL(location.href);
  id ? url.searchParams.set('job', id) : url.searchParams.delete('job');
  history.replaceState(null, '', url);
}
"""
