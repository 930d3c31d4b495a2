// The face buttons of the preview: a click tells the server which point was meant.
element.addEventListener('click', (event) => {
  const face = event.target.closest('[data-face]');
  if (face) trigger('pick', {face: face.dataset.face});
});
