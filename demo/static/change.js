// The button of a sentence about lengths: it opens the options.
element.addEventListener('click', (event) => {
  if (event.target.closest('button')) trigger('pick');
});
