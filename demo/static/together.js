// Videos of one clip by all systems, in step: one leads and is heard, the others follow it.
const DRIFT_S = 0.08;
let leader = null;
const videos = () => [...element.querySelectorAll('video')];
const name = () => {
  const button = element.querySelector('.both');
  const going = videos().some((v) => !v.paused && !v.ended);
  if (button) button.textContent = going ? '❚❚ ' + button.dataset.pause : '▶ ' + button.dataset.play;
};
const lead = (video) => {
  leader = video;
  for (const v of videos()) {
    v.muted = v !== video;
    v.closest('figure').querySelector('.hear')?.setAttribute('aria-pressed', v === video);
  }
};
const follow = () => {
  for (const v of videos()) {
    if (v !== leader && !v.ended && Math.abs(v.currentTime - leader.currentTime) > DRIFT_S) v.currentTime = leader.currentTime;
  }
};
const wire = () => {
  leader = null;
  for (const v of videos()) {
    v.onplay = v.onpause = v.onended = name;
    v.ontimeupdate = () => { if (v === leader && !v.paused) follow(); };
    v.onseeked = () => { if (v === leader && v.paused) follow(); };
    v.onerror = () => v.closest('figure').classList.add('broken');
  }
  if (videos().length) lead(videos()[0]);
};
watch('value', wire);
wire();
element.addEventListener('click', (event) => {
  const hear = event.target.closest('.hear'), both = event.target.closest('.both');
  if (hear) lead(hear.closest('figure').querySelector('video'));
  if (!both || !leader) return;
  const all = videos();
  if (all.some((v) => !v.paused && !v.ended)) return all.forEach((v) => v.pause());
  if (leader.ended) leader.currentTime = 0;
  all.forEach((v) => { v.currentTime = leader.currentTime; v.play().catch(() => {}); });
});
