/** `hostctl history` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';
import { printable } from '../view/status-text.ts';

export function historyCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'history',
    describe: 'List what was made the default, newest first',
    handler: async (options) => {
      const { history } = await import('../../ops/history.ts');
      const context = openContext(options, run.signal);
      await context.printList(
        history(context.host, context.paths),
        (event) => ({ ...event, version: event.version ?? null }),
        ({ time, action, id, version, reference }) =>
          printable(`${time}  ${action.padEnd(8)}  ${id}  ${version ?? '-'}  ${reference}`),
      );
    },
  };
}
