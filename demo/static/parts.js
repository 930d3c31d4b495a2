// The list of voices that were kept: its buttons forget one.
element.addEventListener('click', (event) => {
  const part = event.target.closest('[data-part]');
  if (part) trigger('pick', {part: part.dataset.part});
});
