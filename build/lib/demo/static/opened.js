() => {
  // Which job the address names; another address in the same tab opens that one.
  window.onpopstate = () => location.reload();
  return new URLSearchParams(location.hash.slice(1)).get('job') || '';
}
