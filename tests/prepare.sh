#!/bin/sh
# Installs what the whole suite uses from Debian where it may; says in one line what is missing where it may not.
wanted=""
command -v chromium >/dev/null 2>&1 || wanted="$wanted chromium"
command -v espeak-ng >/dev/null 2>&1 || wanted="$wanted espeak-ng"
ldconfig -p 2>/dev/null | grep -q 'libGL\.so\.1' || wanted="$wanted libgl1"
ldconfig -p 2>/dev/null | grep -q 'libEGL\.so\.1' || wanted="$wanted libegl1"
[ -z "$wanted" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $wanted >/dev/null && exit 0
fi
echo "missing:$wanted (tests that need them are skipped; install them with your package manager)"
