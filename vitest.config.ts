import { defineConfig } from 'vitest/config';

// Projects: `unit` is pure and quick; `conformance` uses other programs as referees; `root` needs root;
// `proof` is a slice of the crash proof; `vm` boots machines; `long` takes too long for each change. `npm run check`
// runs the first two, `npm test` all but the last.
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          setupFiles: ['test/helpers/fixed-seed.ts'],
          include: ['test/*.test.ts', 'test/{format,tree,store,image,deploy,ops,cli}/**/*.test.ts'],
          testTimeout: 60_000,
        },
      },
      {
        test: {
          name: 'conformance',
          setupFiles: ['test/helpers/fixed-seed.ts'],
          include: ['test/conformance/**/*.test.ts'],
          testTimeout: 300_000,
        },
      },
      {
        test: {
          name: 'root',
          setupFiles: ['test/helpers/fixed-seed.ts'],
          include: ['test/{root,model}/**/*.test.ts'],
          globalSetup: ['test/helpers/build-program.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'proof',
          include: ['test/proof/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'long',
          include: ['test/long/**/*.test.ts'],
          testTimeout: 3_600_000,
          hookTimeout: 3_600_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'vm',
          include: ['test/vm/**/*.test.ts'],
          testTimeout: 1_200_000,
          hookTimeout: 1_800_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
