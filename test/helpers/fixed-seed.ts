/**
 * Property tests draw the same cases on every run, so that a change is judged by what it did and not by chance. With
 * HOSTCTL_SEED=random (as `npm run test:long` has it) each run draws new ones; a failure prints the seed to repeat it.
 */

import fc from 'fast-check';

const asked = process.env.HOSTCTL_SEED ?? '1';
if (asked !== 'random') fc.configureGlobal({ seed: Number(asked) });
