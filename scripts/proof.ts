/**
 * `npm run proof`: crashes hostctl everywhere and prints a table of what came of it; see `test/proof/README.md`.
 */
import { mkdirSync, rmSync } from 'node:fs';
import { COMMANDS } from '../test/proof/commands.ts';
import { makeImages } from '../test/proof/lib/oci-image.ts';
import { type Lab, makeScene } from '../test/proof/lib/scene.ts';
import { bundleHostctl, compile } from '../test/proof/lib/tools.ts';
import { ERRORS, KILLS, sweep } from '../test/proof/sweep.ts';

const directory = `/dev/shm/hostctl-proof-${process.pid}`;
mkdirSync(directory, { recursive: true });
try {
  await makeImages(`${directory}/images`);
  const lab: Lab = { directory, program: await bundleHostctl('whole'), images: `${directory}/images` };
  const tracer = await compile('tracer/trace.c');
  const only = process.argv[2];
  const kinds = process.argv[3];
  for (const command of COMMANDS) {
    if (only && command.name !== only) continue;
    const scene = await makeScene(lab, command, { root: 'ext4', boot: 'ext4' });
    console.log(command.name, scene.expected, scene.goodBefore);
    for (const fault of [...KILLS, ...ERRORS]) {
      if (kinds && !kinds.split(',').includes(fault.kind)) continue;
      const start = Date.now();
      const result = await sweep(lab, scene, fault, {
        tracer,
        jobs: 2,
        stride: Number(process.argv[4] ?? 1),
        first: Number(process.argv[5] ?? 1),
        onPoint: (f, at, call) => {
          if (process.env.V) console.log(f.kind, at, call);
        },
      });
      console.log(command.name, fault, result.points, ((Date.now() - start) / 1000).toFixed(1));
      for (const violation of result.violations) console.log(JSON.stringify(violation));
    }
  }
} finally {
  rmSync(directory, { recursive: true, force: true });
}
