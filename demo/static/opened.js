() => {
  // Which job the address names; another address in the same tab opens that one.
  for (const fold of document.querySelectorAll('.label-wrap')) {  // gradio says by a class alone whether one is open
    const say = () => fold.setAttribute('aria-expanded', fold.classList.contains('open'));
    say();
    new MutationObserver(say).observe(fold, {attributeFilter: ['class']});
  }
  window.onpopstate = () => location.reload();
  return new URLSearchParams(location.hash.slice(1)).get('job') || '';
}
