/**
 * What must hold of a host that a fault has left, beside that it boots: hostctl finds nothing corrupt on it, the command
 * goes through when it is run again, and after `gc` nothing is left that belongs to nothing.
 */

import { existsSync } from 'node:fs';
import { INSTALL_MARK, leaks } from './checker/leaks.ts';
import { hostAt, imagesFor, judge, type Lab, runToEnd, type Scene, sceneCommand } from './lib/scene.ts';

interface Places {
  readonly root: string;
  readonly boot: string;
}

/** Does all that on mounted disks; says what went wrong, if anything. */
export async function recover(lab: Lab, scene: Scene, at: Places): Promise<string | undefined> {
  const problem = (await findNothing(lab, scene, at)) ?? (await runAgain(lab, scene, at));
  if (problem !== undefined) return problem;
  const { answer, reason } = judge(scene, hostAt(at));
  return answer === 'NEW' ? collect(lab, scene, at) : `run again it is ${answer}: ${reason ?? ''}`;
}

/** A fault of a command is no damage. */
async function findNothing(lab: Lab, { command }: Scene, at: Places): Promise<string | undefined> {
  // A scene that starts with damage has it still; what an installation made that was cut off is no host.
  if (command.mends === true || existsSync(`${at.root}/${INSTALL_MARK}`)) return undefined;
  const { code, output } = await runToEnd(sceneCommand(lab, command, at, ['fsck']));
  return code === 0 ? undefined : `fsck ended with ${String(code)}: ${output}`;
}

/** Runs what is run after a crash; says what went wrong with that, if anything. */
export async function runAgain(lab: Lab, { command }: Scene, at: Places): Promise<string | undefined> {
  const image = imagesFor(lab, command);
  for (const { args, exits } of command.again?.(image) ?? [{ args: command.args(image) }]) {
    const { code, output } = await runToEnd(sceneCommand(lab, command, at, args));
    if (code === null || !(exits ?? [0]).includes(code))
      return `${args[0] ?? ''} run again ended with ${String(code)}: ${output}`;
  }
  return undefined;
}

/** The host is afterwards what it was. */
async function collect(lab: Lab, scene: Scene, at: Places): Promise<string | undefined> {
  for (const args of [['gc'], ['fsck', '--deep']]) {
    const { code, output } = await runToEnd(sceneCommand(lab, scene.command, at, args));
    if (code !== 0) return `${args.join(' ')} ended with ${String(code)}: ${output}`;
  }
  const host = hostAt(at);
  const { answer, reason } = judge(scene, host, true);
  if (answer !== 'NEW') return `after gc it is ${answer}: ${reason ?? ''}`;
  const left = leaks(host);
  return left.length === 0 ? undefined : `left over after gc: ${left.join(', ')}`;
}
