/** `hostctl report` */

import type { CommandModule } from 'yargs';
import { openContext, type GlobalOptions } from '../context.ts';
import type { Run } from '../program.ts';

export function reportCommand(run: Run): CommandModule<GlobalOptions, GlobalOptions> {
  return {
    command: 'report',
    describe: 'Gather what a bug report needs; what looks like a secret is left out',
    handler: async (options) => {
      const { stringify } = await import('yaml');
      const { report } = await import('../../ops/report.ts');
      const { reportDocument } = await import('../view/report-document.ts');
      const context = openContext(options, run.signal);
      const document = reportDocument(await report(context.host, { ...context.paths, config: options.config }));
      context.print(document, () => stringify(document));
      context.host.log.info('Read it before you hand it on: names of images and files are in it');
    },
  };
}
