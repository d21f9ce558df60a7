/** `npm run package`: makes `build/hostctl_<version>_amd64.deb` and prints its path. */

import { buildPackage } from './lib/deb.ts';
import { ensureHostPackages, PACKAGE_NEEDS } from './lib/host-packages.ts';

await ensureHostPackages(PACKAGE_NEEDS, (line) => console.error(line));
console.log(await buildPackage());
