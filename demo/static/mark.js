// Marks the field that a sentence is about and brings the focus there; when the sentence goes, so does the mark.
const FOCUSED = 'input:not([type=file]), button:not([role=tab], [tabindex="-1"])';
let marked = [];
watch('value', () => {
  for (const field of marked) field.removeAttribute('aria-invalid');
  marked = [];
  const said = element.querySelector('[data-for]'), place = said && document.getElementById(said.dataset.for);
  if (!place) return;
  marked = [...place.querySelectorAll('input')];
  for (const field of marked) field.setAttribute('aria-invalid', 'true');
  const seen = [...place.querySelectorAll(FOCUSED)].find((field) => field.offsetParent && !field.disabled);
  (seen || said).scrollIntoView({block: 'center'});
  seen?.focus({preventScroll: true});
});
