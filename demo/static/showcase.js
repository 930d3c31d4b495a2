// The finished example plays as soon as it is seen, without its sound; not for those who asked for less movement.
const video = element.querySelector('video');
if (!matchMedia('(prefers-reduced-motion: reduce)').matches) {
  video.muted = true;
  video.play().catch(() => {});
}
