# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# Faults of QEMU itself, after which a guest gets a second try.

# vm_state JOB: what the processors do, all at one time, in JOB/state.
vm_state()
{
	"$TOP/scripts/lib/qmp.py" "$1/qmp" stop "info registers -a" "info lapic 0" "info lapic 1" cont >"$1/state" 2>&1
}

# eoi_lost JOB: in JOB/state, all processors are halted, and one of them has an
# interrupt in service. Linux ends each interrupt in its handler and halts outside of
# handlers only, so that the emulated APIC has lost the end of that interrupt. From
# then on it holds back all interrupts that are not more urgent, the timer's included.
eoi_lost()
{
	[ "$(grep -c 'HLT=1' "$1/state")" = "$(grep -c 'HLT=' "$1/state")" ] &&
		grep -qE '^ISR[[:space:]]+[0-9]' "$1/state"
}

# tlb_lost JOB: QEMU 10 aborted by an assertion about its own TLB: a processor accessed
# MMIO while a device was unplugged, which takes memory out of QEMU's map.
tlb_lost()
{
	[ ! -s "$1/status" ] && grep -qF "iotlb_to_section: Assertion \`section_index < d->map.sections_nb' failed" "$1/qemu.log"
}
