#!/bin/sh
# Start Asterisk with the AMI secret from a file, copied to a file that only Asterisk can read.
set -eu
umask 077
secret=/run/secrets/AMI_SECRET
if [ -r "$secret" ]; then
  # A semicolon begins a comment in Asterisk's files.
  printf '[dialer](+)\nsecret = %s\n' "$(sed 's/;/\\;/g' "$secret")" >/run/asterisk/ami-secret.conf
elif [ -e "$secret" ]; then
  echo "asterisk: $secret cannot be read by user $(id -u): chown it to $(id -u), or chmod o+r" >&2
  exit 1
elif [ -e /etc/asterisk/site/manager.d/dialer.conf ]; then
  echo "asterisk: there is no $secret: give this container its AMI secret as AMI_SECRET" >&2
  exit 1
fi
# -f: stay in the foreground, -n: no colours.
exec asterisk -f -n
