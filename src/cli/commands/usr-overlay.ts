/** `hostctl usr-overlay` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

export function usrOverlayCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'usr-overlay',
    describe: 'Make /usr of the running host writable until the next boot',
    handler: async (options) => {
      const { usrOverlay } = await import('../../ops/usr-overlay.ts');
      const context = openContext(options, run.signal);
      const result = await usrOverlay(context.host);
      context.print(result, () => '/usr can be written until the next boot\n');
    },
  };
}
