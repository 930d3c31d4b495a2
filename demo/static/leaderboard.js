// A choice is followed at once; without this script the button does it.
for (const form of document.querySelectorAll('form[data-auto]')) {
  form.querySelector('button').hidden = true;
  form.addEventListener('change', () => form.submit());
}
