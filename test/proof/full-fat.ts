/**
 * The full disks with a FAT boot partition, as a script for a guest, whose kernel can mount it: prints what it found.
 *
 *   node full-fat.mjs PROGRAM IMAGES OPTIONS
 */

import { mkdirSync } from 'node:fs';
import { fillDisks, FOUND, type FullDisksOptions } from './full-disks.ts';

const [program = '', images = '', options = ''] = process.argv.slice(2);
const directory = '/run/full';
mkdirSync(directory);
const found = await fillDisks({ directory, program, images }, JSON.parse(options) as FullDisksOptions);
console.log(`\n${FOUND}${JSON.stringify(found)}`);
