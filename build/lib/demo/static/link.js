(id) => {
  // The owner's link stands behind #, where no server and no referrer sees it. Back finds the job before.
  const now = new URLSearchParams(location.hash.slice(1)).get('job') || '';
  if (now === id) return;
  const address = location.pathname + location.search + (id ? `#job=${id}` : '');
  now ? history.pushState(null, '', address) : history.replaceState(null, '', address);
}
