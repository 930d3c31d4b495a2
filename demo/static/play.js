// Original and results start together; only the first result is heard. The original, often longer, ends with it.
watch('value', () => {
  if (!element.querySelector('video')) return;
  element.scrollIntoView({behavior: 'smooth', block: 'nearest'});
  // Where the button that had the focus is gone, the keyboard goes on here.
  if (document.activeElement === document.body) element.querySelector('.both').focus({preventScroll: true});
});
element.addEventListener('click', (event) => {
  const share = event.target.closest('.share');
  if (share) {
    const address = new URL(share.dataset.share, location.origin + location.pathname).href;
    const copied = navigator.clipboard ? navigator.clipboard.writeText(address) : Promise.reject();
    const before = share.dataset.name ||= share.textContent;
    const done = () => { share.textContent = share.dataset.done; setTimeout(() => { share.textContent = before; }, 3000); };
    copied.then(done, () => window.prompt(before, address));
    return;
  }
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
