#!/bin/sh
# Runs SIPp as the carrier, for ever. One line for each INVITE goes to rings.log (see uas.xml).
# -deadcall_wait: a late retransmission of a finished call must not start a new one.
# -max_retrans bounds how long a call to a killed Asterisk is kept.
log=/var/log/carrier
while :; do
    sipp -sf /carrier/uas.xml -i "$(hostname -i)" -p 5060 -nostdin \
        -trace_logs -log_file "$log/rings.log" -log_overwrite false \
        -deadcall_wait 40000 -max_retrans 7 -default_behaviors all,-abortunexp \
        >/dev/null 2>>"$log/sipp.err"
    echo "sipp ended with $?" >>"$log/sipp.err"
    sleep 0.2
done
