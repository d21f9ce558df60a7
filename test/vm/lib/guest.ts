/**
 * Tells a booted machine what to do and reads what came of it, without touching its disk: commands go in as systemd
 * credentials by SMBIOS, answers come out by a virtio serial port. Image and boot entry stay what hostctl wrote.
 */

import type { StatusDocument } from '../../../src/cli/view/status-json.ts';
import { type Boot, type BootResult, lastSerialLines, runMachine } from './qemu.ts';

export interface Step {
  readonly name: string;
  /** Shell commands. */
  readonly run: string;
  /** Failing is what the step is for. */
  readonly mayFail?: boolean;
}

export interface Answer {
  readonly status: number;
  /** stdout and stderr together. */
  readonly output: string;
}

/** The answers of one boot, by step name. */
export class Answers {
  readonly #steps: Readonly<Record<string, Answer>>;
  readonly #context: string;

  /** @param context follows the message where a step failed */
  constructor(steps: Readonly<Record<string, Answer>>, context = '') {
    this.#steps = steps;
    this.#context = context;
  }

  /** The answer of a step that was reached. */
  of(name: string): Answer {
    const answer = this.#steps[name];
    if (answer === undefined) throw new Error(`Step "${name}" has no answer${this.#context}`);
    return answer;
  }

  /** Output of a step that must have succeeded. */
  ok(name: string): string {
    const { status, output } = this.of(name);
    if (status !== 0) throw new Error(`Step "${name}" ended with ${status}:\n${output}${this.#context}`);
    return output;
  }

  toJSON(): unknown {
    return this.#steps;
  }
}

/** What `hostctl status --json` said in step `step`. */
export function statusOf(answers: Answers, step = 'status'): StatusDocument {
  return JSON.parse(answers.ok(step)) as StatusDocument;
}

export interface GuestResult extends BootResult {
  readonly answers: Answers;
}

export interface GuestBoot extends Omit<Boot, 'smbios'> {
  readonly steps: readonly Step[];
  /** Appended to the command line that the boot entry (or `direct`) gives. */
  readonly cmdline?: readonly string[];
  /** Ends in an orderly shutdown, so that units have their say; otherwise the machine is cut off after a sync. */
  readonly shutDown?: boolean;
  /** The machine is not expected to reach the steps. It has one processor, see `KERNEL_DEATH`. */
  readonly expectNoBoot?: boolean;
}

const PORT = '/dev/virtio-ports/hostctl.test';

/** Slow under emulation and not what any test looks at. */
const MASKED = ['e2scrub_reap.service', 'dracut-shutdown.service', 'getty@tty1.service', 'apt-daily.timer'].map(
  (unit) => `systemd.mask=${unit}`,
);
/** What every boot has on its command line. On a busy host the emulated timer can be too slow for the kernel's test of it. */
export const QUIET = ['console=ttyS0', 'quiet', 'loglevel=4', 'panic=-1', 'no_timer_check', ...MASKED];

/**
 * Not `oneshot`: that would be part of the boot, which would then never be finished while the steps run. Ordered after
 * everything that judges a boot.
 */
const UNIT = `[Unit]
Description=Steps of a hostctl test
After=multi-user.target boot-complete.target systemd-bless-boot.service hostctl-mark-good.service
[Service]
Type=exec
ImportCredential=hostctl.steps
ExecStart=/bin/sh %d/hostctl.steps
StandardOutput=null
StandardError=journal+console
`;

/**
 * An emulator of several processors now and then loses a race with a kernel that patches its own code in its first
 * seconds: such a boot says nothing about the system, and is made once more. Where a boot is to fail nobody could tell, and
 * its try would be used up: there is no second processor then.
 */
export const KERNEL_DEATH = /^\[ {4}[0-9]\.\d+\] RIP: /m;

function stepsScript(steps: readonly Step[], shutDown: boolean): string {
  const lines = [
    'exec 3>' + PORT,
    'export LC_ALL=C.UTF-8 HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin',
  ];
  for (const { name, run } of steps) {
    lines.push(`( ${run}\n) </dev/null >/run/hostctl-test.out 2>&1; status=$?`);
    lines.push(`printf '%s %s %s\\n' ${name} "$status" "$(base64 -w0 </run/hostctl-test.out)" >&3`);
  }
  lines.push("printf 'end 0 \\n' >&3", 'sync', shutDown ? 'systemctl reboot' : 'systemctl reboot -ff');
  return `${lines.join('\n')}\n`;
}

function credential(name: string, text: string): string {
  return `io.systemd.credential.binary:${name}=${Buffer.from(text).toString('base64')}`;
}

function parseAnswers(channel: string): Record<string, Answer> {
  const answers: Record<string, Answer> = {};
  // The last line may be cut where the machine was stopped.
  for (const line of channel.split('\n').slice(0, -1)) {
    const [name = '', status = '', output = ''] = line.split(' ');
    answers[name] = { status: Number(status), output: Buffer.from(output, 'base64').toString() };
  }
  return answers;
}

/** Boots the machine, runs the steps in it and ends it. Throws where it did not get to the end of them, or one failed. */
export async function runGuest(guest: GuestBoot): Promise<GuestResult> {
  const extra = [...QUIET, ...(guest.cmdline ?? [])].join(' ');
  const smbios = [
    credential('systemd.extra-unit.hostctl-test.service', UNIT),
    credential('systemd.unit-dropin.multi-user.target', '[Unit]\nWants=hostctl-test.service\n'),
    credential('hostctl.steps', stepsScript(guest.steps, guest.shutDown === true)),
  ];
  // A unified kernel image is given nothing by its loader, and takes this by itself.
  const taker = guest.firmware === 'secure-boot' ? 'stub' : 'boot';
  if (guest.direct === undefined) smbios.push(`io.systemd.${taker}.kernel-cmdline-extra=${extra}`);
  const direct = guest.direct && { ...guest.direct, cmdline: `${guest.direct.cmdline} ${extra}` };
  const one = guest.expectNoBoot === true && ({ processors: 1 } as const);
  const machine = { ...guest, ...(direct && { direct }), ...one, smbios };
  let result = await runMachine(machine);
  const diedEarly = guest.expectNoBoot !== true && result.channel === '' && KERNEL_DEATH.test(result.serial);
  if (diedEarly) result = await runMachine(machine);
  const answers = parseAnswers(result.channel);
  const log = `\n--- end of the serial log of ${guest.name} ---\n${lastSerialLines(result.serial)}`;
  const reached = Object.keys(answers);
  if (guest.expectNoBoot === true) {
    if (reached.length > 0) throw new Error(`The machine "${guest.name}" booted, which it must not${log}`);
  } else if (!reached.includes('end')) {
    const list = reached.join(', ') || 'none';
    throw new Error(`The machine "${guest.name}" did not reach its last step (reached: ${list})${log}`);
  }
  const told = new Answers(answers, log);
  if (guest.expectNoBoot !== true) for (const { name, mayFail } of guest.steps) if (mayFail !== true) told.ok(name);
  return { ...result, answers: told };
}
