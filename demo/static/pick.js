// The face buttons of the preview: a click tells the server which point was meant.
element.addEventListener('click', (event) => {
  const face = event.target.closest('[data-face]');
  if (face) trigger('pick', {face: face.dataset.face});
});
// After an example or an upload, whose field is gone, the keyboard goes on at the first face.
watch('value', () => {
  if (document.activeElement === document.body) element.querySelector('.face')?.focus({preventScroll: true});
});
