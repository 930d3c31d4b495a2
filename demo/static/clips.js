// The buttons of the table of clips: a click tells the server which clip is to be seen.
element.addEventListener('click', (event) => {
  const clip = event.target.closest('[data-pair]');
  if (clip) trigger('pick', {pair: clip.dataset.pair});
});
